using System.Management.Automation;
using System.Management.Automation.Runspaces;

namespace LightningAttn.BuildScripts.Tests;

/// <summary>
/// Runs build.ps1 in the PowerShell engine, in a folder of its own, with functions in place of the tools. The modules
/// of Push-Location and the like are not part of the engine: they are functions here as well.
/// </summary>
internal sealed class ScriptRun : IDisposable
{
    private const string Stubs = """
        function cmake { $tools.Run('cmake', $args); $global:LASTEXITCODE = $tools.ExitStatus }
        function ctest { $tools.Run('ctest', $args); $global:LASTEXITCODE = $tools.ExitStatus }
        function dotnet { $tools.Run('dotnet', $args); $global:LASTEXITCODE = $tools.ExitStatus }
        function cl { }
        function Push-Location([string] $path) { $ExecutionContext.SessionState.Path.PushCurrentLocation('stack')
            $null = $ExecutionContext.SessionState.Path.SetLocation($path) }
        function Pop-Location { $null = $ExecutionContext.SessionState.Path.PopLocation('stack') }
        """;

    private static readonly string[] s_variables =
        ["PATH", "OS", "LATTN_ARGS", "CMAKE_GENERATOR", "CXX", "DOTNET_NOLOGO", "DOTNET_CLI_TELEMETRY_OPTOUT"];

    private readonly Dictionary<string, string?> _before =
        s_variables.ToDictionary(static name => name, Environment.GetEnvironmentVariable);

    private readonly List<string> _missing = [];

    internal ScriptRun()
    {
        Folder = Directory.CreateTempSubdirectory("build ").FullName;
        File.Copy(Source("build.ps1"), Path.Combine(Folder, "build.ps1"));
        foreach (string name in s_variables)
        {
            Environment.SetEnvironmentVariable(name, null);
        }

        // No tool of this machine is found.
        Environment.SetEnvironmentVariable("PATH", Folder);
        Environment.SetEnvironmentVariable("OS", "Windows_NT");
    }

    internal sealed record Outcome(int ExitStatus, string Output, string Error);

    /// <summary>The script's folder, with a space in its name.</summary>
    internal string Folder { get; }

    internal Tools Tools { get; } = new();

    internal static string Source(string name) => Path.Combine(AppContext.BaseDirectory, "scripts", name);

    /// <summary>Takes the stand-in of a tool away.</summary>
    internal void Remove(string tool) => _missing.Add(tool);

    /// <summary>Runs the script as somebody types it: <c>build.ps1</c> and the given arguments.</summary>
    internal Outcome Run(string arguments)
    {
        using Runspace runspace = RunspaceFactory.CreateRunspace(InitialSessionState.CreateDefault2());
        runspace.Open();
        runspace.SessionStateProxy.SetVariable("tools", Tools);
        runspace.SessionStateProxy.SetVariable("LASTEXITCODE", 0);
        using var shell = PowerShell.Create(runspace);
        shell.AddScript(Stubs).Invoke();
        foreach (string tool in _missing)
        {
            runspace.SessionStateProxy.InvokeProvider.Item.Remove($"function:{tool}", recurse: false);
        }

        using var output = new StringWriter();
        using var error = new StringWriter();
        (TextWriter oldOutput, TextWriter oldError) = (Console.Out, Console.Error);
        try
        {
            Console.SetOut(output);
            Console.SetError(error);
            shell.Commands.Clear();
            string script = Path.Combine(Folder, "build.ps1");
            foreach (PSObject item in shell.AddScript($"& '{script}' {arguments}").Invoke())
            {
                output.WriteLine(item);
            }
        }
        finally
        {
            Console.SetOut(oldOutput);
            Console.SetError(oldError);
        }

        foreach (ErrorRecord record in shell.Streams.Error)
        {
            error.WriteLine(record);
        }

        int status = (int)runspace.SessionStateProxy.GetVariable("LASTEXITCODE");
        return new Outcome(status, output.ToString(), error.ToString());
    }

    public void Dispose()
    {
        foreach ((string name, string? value) in _before)
        {
            Environment.SetEnvironmentVariable(name, value);
        }

        Directory.Delete(Folder, recursive: true);
    }
}
