using System.CommandLine;
using LightningAttn;

namespace CharLm;

/// <summary>What surrounds a console program: Ctrl+C, the choice of libtorch, and errors of a line.</summary>
internal static class ConsoleProgram
{
    private const int MissingLibrary = 1;
    private const int UserError = 2;
    private const int Interrupted = 130;

    /// <param name="name">Stands before error messages.</param>
    /// <param name="args">The arguments of the program.</param>
    /// <param name="createCommand">Makes the command line; its action is the function that it is given.</param>
    /// <param name="run">The program. The first Ctrl+C cancels the token, the second one ends the process.</param>
    /// <returns>The exit code; that of <paramref name="run"/> if nothing else happens.</returns>
    public static int Run<TOptions>(
        string name,
        string[] args,
        Func<Func<TOptions, int>, RootCommand> createCommand,
        Func<TOptions, CancellationToken, int> run)
    {
        using var interrupt = new CancellationTokenSource();
        Console.CancelKeyPress += (_, e) =>
        {
            e.Cancel = !interrupt.IsCancellationRequested;
            interrupt.Cancel();
        };

        var parsed = createCommand(RunGuarded).Parse(args);
        return parsed.Errors.Count > 0
            ? Fail(string.Join("; ", parsed.Errors.Select(error => error.Message)) + " (see --help)")
            : parsed.Invoke(new() { EnableDefaultExceptionHandler = false });

        int RunGuarded(TOptions options)
        {
            try
            {
                OpenMpEnvironment.PreferSleeping();
                if (Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 })
                {
                    TorchRuntime.Load();
                }

                var code = run(options, interrupt.Token);
                return interrupt.IsCancellationRequested ? Interrupted : code;
            }
            catch (Exception e) when (e is UserErrorException or IOException or UnauthorizedAccessException)
            {
                return Fail(e.Message);
            }
            catch (DllNotFoundException e)
            {
                // A native library is missing; the message lists what was tried, a line each.
                Console.Error.WriteLine($"{name}: {e.Message}");
                return MissingLibrary;
            }
        }

        int Fail(string message)
        {
            Console.Error.WriteLine($"{name}: {message.ReplaceLineEndings(" ").Replace("\t", "")}");
            return UserError;
        }
    }
}
