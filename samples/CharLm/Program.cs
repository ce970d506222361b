using CharLm;
using LightningAttn;

const int MissingLibrary = 1;
const int UserError = 2;
const int Interrupted = 130;

using var interrupt = new CancellationTokenSource();
Console.CancelKeyPress += (_, e) =>
{
    // The first Ctrl+C ends the training with a checkpoint; the second one ends the process.
    e.Cancel = !interrupt.IsCancellationRequested;
    interrupt.Cancel();
};

var parsed = CommandLine.Create(Run).Parse(args);
if (parsed.Errors.Count > 0)
{
    return Fail(string.Join("; ", parsed.Errors.Select(error => error.Message)) + " (see --help)");
}

return parsed.Invoke(new() { EnableDefaultExceptionHandler = false });

int Run(Options options)
{
    try
    {
        OpenMpEnvironment.PreferSleeping();
        if (Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 })
        {
            TorchRuntime.Load();
        }

        Session.Run(options, interrupt.Token);
        return interrupt.IsCancellationRequested ? Interrupted : 0;
    }
    catch (Exception e) when (e is UserErrorException or IOException or UnauthorizedAccessException)
    {
        return Fail(e.Message);
    }
    catch (DllNotFoundException e)
    {
        // A native library is missing; the message lists what was tried, a line each.
        Console.Error.WriteLine($"charlm: {e.Message}");
        return MissingLibrary;
    }
}

static int Fail(string message)
{
    Console.Error.WriteLine($"charlm: {message.ReplaceLineEndings(" ").Replace("\t", "")}");
    return UserError;
}
