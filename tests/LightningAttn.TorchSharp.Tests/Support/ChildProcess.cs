using System.Diagnostics;

namespace LightningAttn.Tests.Support;

/// <summary>Runs a scenario of this executable in a process of its own, for what could end the process.</summary>
internal static class ChildProcess
{
    internal const string ScenarioOption = "--scenario";

    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

    /// <summary>How it ended and what it printed, with \n at the end of each line.</summary>
    internal sealed record Outcome(int ExitCode, string Output);

    internal static Outcome Run(string scenario, params (string Name, string Value)[] environment)
    {
        // The executable itself, or `dotnet` with the assembly.
        string program = Environment.ProcessPath!;
        string[] assembly = Path.GetFileNameWithoutExtension(program) == "dotnet"
            ? [typeof(ChildProcess).Assembly.Location]
            : [];
        var start = new ProcessStartInfo(program, [.. assembly, ScenarioOption, scenario])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(s_limit))
        {
            process.Kill();
            Assert.Fail($"The scenario {scenario} did not end within {s_limit}.");
        }

        return new Outcome(process.ExitCode, (output.Result + error.Result).ReplaceLineEndings("\n"));
    }
}
