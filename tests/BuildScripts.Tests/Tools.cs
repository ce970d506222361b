namespace LightningAttn.BuildScripts.Tests;

/// <summary>What stands in for cmake, ctest and dotnet: writes down the calls and answers as it was told.</summary>
public sealed class Tools
{
    private readonly Dictionary<string, int> _failures = [];

    private readonly Dictionary<string, string[]> _answers = new()
    {
        ["cmake --version"] = ["cmake version 3.31.6", "", "CMake suite maintained and supported by Kitware"],
        ["dotnet --list-sdks"] = ["8.0.404 [C:\\dotnet\\sdk]", "10.0.100 [C:\\dotnet\\sdk]"],
    };

    /// <summary>Gets the exit status of the last call.</summary>
    public int ExitStatus { get; private set; }

    /// <summary>Gets the calls that build something, in order, each as one line.</summary>
    internal List<string> Calls { get; } = [];

    /// <summary>Gets what LATTN_ARGS held at the last of them, in parts.</summary>
    internal string[] PassedArguments { get; private set; } = [];

    /// <summary>Gets the generator that the environment named at the first call.</summary>
    internal string? Generator { get; private set; }

    /// <summary>The next call of this line has this exit status.</summary>
    internal void Fail(string line, int status) => _failures[line] = status;

    /// <summary>A call of this line prints this.</summary>
    internal void Answer(string line, params string[] output) => _answers[line] = output;

    /// <summary>Called by the functions of <see cref="ScriptRun"/>.</summary>
    /// <param name="tool">The name of the tool.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <returns>What it prints.</returns>
    public string[] Run(string tool, object[] arguments)
    {
        string line = string.Join(' ', arguments.Prepend(tool));
        ExitStatus = _failures.GetValueOrDefault(line);
        if (_answers.TryGetValue(line, out string[]? answer))
        {
            return answer;
        }

        if (Calls.Count == 0)
        {
            Generator = Environment.GetEnvironmentVariable("CMAKE_GENERATOR");
        }

        Calls.Add(line);
        PassedArguments = Environment.GetEnvironmentVariable("LATTN_ARGS")?.Split('\x1f') ?? [];
        return [];
    }
}
