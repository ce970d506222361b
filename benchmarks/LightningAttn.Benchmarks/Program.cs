using System.CommandLine;
using LightningAttn;
using LightningAttn.Benchmarks;
using LightningAttn.Interop;

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

var path = new Option<string>("--path")
{
    Description = "Our kernels on CUDA; general: mma.sync, hopper: wgmma.",
    DefaultValueFactory = _ => "automatic",
};
path.AcceptOnlyFromAmong("automatic", "general", "hopper");

var forward = ShapeList("--forward", "B,H,N[,D];...", "forward");
var backward = ShapeList("--backward", "B,H,N[,D];...", "forward + backward and backward");
var varlen = ShapeList("--varlen", "sequences,H,tokens[,D];...", "packed");
var decode = ShapeList("--decode", "B,H[,D];...", "decode");

var layer = ShapeList("--layer", "B,H,N[,D];...", "layer");

var memory = new Option<string?>("--memory")
{
    Description = "Shapes of one forward + backward pass each, of which the peak of device memory is shown. CUDA only.",
    HelpName = "B,H,N[,D];...",
};

var samples = new Option<int>("--samples")
{
    Description = "Samples per row; the median is shown.",
    DefaultValueFactory = _ => 25,
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

var json = new Option<string?>("--json")
{
    Description = "Also write the machine and each row as a line of JSON.",
    HelpName = "file",
};

var charts = new Option<string?>("--charts")
{
    Description = "Also draw charts of the rows (PNG; needs fonts).",
    HelpName = "folder",
};

var chartsFrom = new Option<string[]>("--charts-from")
{
    Description = "Measure nothing: draw the charts of a file that --json wrote, here or elsewhere.",
    HelpName = "file folder",
    Arity = new ArgumentArity(2, 2),
    AllowMultipleArgumentsPerToken = true,
};

var root = new RootCommand("Checks the operators against the float64 recurrence, then times them.")
{
    device, type, path, forward, backward, varlen, decode, layer, memory, samples, noCompare, json, charts, chartsFrom,
};
root.SetAction(result => Run(() =>
{
    if (result.GetValue(chartsFrom) is [var file, var folder])
    {
        Charts.DrawFrom(file, folder);
        return;
    }

    var options = new Options
    {
        Device = result.GetRequiredValue(device),
        Type = result.GetValue(type),
        Path = Enum.Parse<CudaPath>(result.GetRequiredValue(path), ignoreCase: true),
        Shapes = new[] { forward, backward, varlen, decode, layer, memory }.All(option => result.GetValue(option) is null)
            ? null
            : new ShapeLists(
                Shape.ParseSequences(result.GetValue(forward) ?? ""),
                Shape.ParseSequences(result.GetValue(backward) ?? ""),
                Shape.ParseSequences(result.GetValue(varlen) ?? ""),
                Shape.ParseTokens(result.GetValue(decode) ?? ""),
                Shape.ParseSequences(result.GetValue(layer) ?? ""),
                Shape.ParseSequences(result.GetValue(memory) ?? "")),
        Samples = result.GetValue(samples),
        NoCompare = result.GetValue(noCompare),
        JsonFile = result.GetValue(json),
        ChartsFolder = result.GetValue(charts),
    };
    if (Environment.GetEnvironmentVariable("LATTN_TORCH_LIB") is { Length: > 0 })
    {
        TorchRuntime.Load();
    }

    Suite.Run(options, string.Join(' ', args.Select(Quoted)));
}));

var parsed = root.Parse(args);
if (parsed.Errors.Count > 0)
{
    return Fail(string.Join("; ", parsed.Errors.Select(error => error.Message)) + " (see --help)", UserError);
}

return parsed.Invoke(new() { EnableDefaultExceptionHandler = false });

static Option<string?> ShapeList(string name, string form, string rows) => new(name)
{
    Description = $"Shapes of the {rows} rows. Without any shapes: the defaults of the device. D: 128.",
    HelpName = form,
};

static int Run(Action action)
{
    try
    {
        action();
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

static string Quoted(string argument) =>
    argument.Length > 0 && !argument.Any(c => c is ' ' or ';') ? argument : $"'{argument}'";

static int Fail(string message, int exitCode)
{
    Console.Error.WriteLine($"benchmark: {message}");
    return exitCode;
}
