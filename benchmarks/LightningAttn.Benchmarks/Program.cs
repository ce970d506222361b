using System.CommandLine;
using LightningAttn;
using LightningAttn.Benchmarks;

const int WrongResult = 1;
const int UserError = 2;

var device = new Option<string>("--device")
{
    Description = "Where to compute. auto: the GPU if libtorch finds one.",
    DefaultValueFactory = _ => "auto",
};
device.AcceptOnlyFromAmong("auto", "cpu", "cuda");

var type = new Option<string?>("--dtype") { Description = "Type of q, k and v. Default: fp32 (CUDA: bf16)." };
type.AcceptOnlyFromAmong("fp32", "bf16", "fp16");

var shapes = new Option<string?>("--shapes")
{
    Description = "Shapes of the forward and backward rows; empty for none. Default: some of each device.",
    HelpName = "B,H,N,D;...",
};

var decodeShapes = new Option<string?>("--decode-shapes")
{
    Description = "Shapes of the decode rows; empty for none. Default: some of each device.",
    HelpName = "B,H,D;...",
};

var samples = new Option<int>("--samples")
{
    Description = "Samples per row; the median is shown.",
    DefaultValueFactory = _ => 15,
};
samples.Validators.Add(result =>
{
    if (result.Tokens is [var token] && int.TryParse(token.Value, out var count) && count < 1)
    {
        result.AddError("--samples must be at least 1");
    }
});

var noCompare = new Option<bool>("--no-compare")
{
    Description = "Leave out the same algorithm in TorchSharp operators, and softmax attention.",
};

var json = new Option<string?>("--json") { Description = "Also write one JSON object per row.", HelpName = "file" };

var root = new RootCommand("Checks the operators against the float64 recurrence, then times them.")
{
    device, type, shapes, decodeShapes, samples, noCompare, json,
};
root.SetAction(result => Run(() => new Options
{
    Device = result.GetRequiredValue(device),
    Type = result.GetValue(type),
    Shapes = result.GetValue(shapes) is { } list ? Shape.ParseList(list, axes: 4) : null,
    DecodeShapes = result.GetValue(decodeShapes) is { } decodeList ? Shape.ParseList(decodeList, axes: 3) : null,
    Samples = result.GetValue(samples),
    NoCompare = result.GetValue(noCompare),
    JsonFile = result.GetValue(json),
}));

var parsed = root.Parse(args);
if (parsed.Errors.Count > 0)
{
    return Fail(string.Join("; ", parsed.Errors.Select(error => error.Message)) + " (see --help)", UserError);
}

return parsed.Invoke(new() { EnableDefaultExceptionHandler = false });

int Run(Func<Options> read)
{
    try
    {
        var options = read();
        if (Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 })
        {
            TorchRuntime.Load();
        }

        Suite.Run(options, string.Join(' ', args));
        return 0;
    }
    catch (GateException e)
    {
        return Fail(e.Message, WrongResult);
    }
    catch (Exception e) when (
        e is FormatException or InvalidOperationException or IOException or NotSupportedException
            or DllNotFoundException)
    {
        return Fail(e.Message, UserError);
    }
}

static int Fail(string message, int exitCode)
{
    Console.Error.WriteLine($"benchmark: {message}");
    return exitCode;
}
