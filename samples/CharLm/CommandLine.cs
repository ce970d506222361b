using System.CommandLine;
using System.Globalization;
using System.Numerics;

namespace CharLm;

/// <summary>The options of the program and their help.</summary>
internal static class CommandLine
{
    private static readonly Option<string?> s_data = new("--data")
    {
        Description = "Text file or folder to train on; folders are searched for text files. "
            + "Default: the sources and documents of this repository.",
        HelpName = "path",
    };

    private static readonly Option<double?> s_maxMinutes = Number<double>(
        "--max-minutes", minimum: 0, "minutes",
        "Train this long; a resumed run counts the time before as well. "
        + "Default: 2, or 12 passes over the data if that is sooner.");

    private static readonly Option<int?> s_steps = Number<int>(
        "--steps", minimum: 0, "count",
        "Train this many steps instead: the same seed then gives the same model. 0 only generates.");

    private static readonly Option<int?> s_batch = Number<int>(
        "--batch", minimum: 1, "count",
        "Sequences per step. Default: 8 (CUDA: 16).");

    private static readonly Option<int?> s_sequenceLength = Number<int>(
        "--seq-len", minimum: 1, "bytes",
        "Bytes per sequence. Default: 128 (CUDA: 512).");

    private static readonly Option<int?> s_layers = Number<int>(
        "--layers", minimum: 1, "count",
        "Decoder blocks. Default: 4 (CUDA: 6).");

    private static readonly Option<int?> s_heads = Number<int>(
        "--heads", minimum: 1, "count",
        "Attention heads. Default: 8 (CUDA: 12).");

    private static readonly Option<int?> s_dim = Number<int>(
        "--dim", minimum: 1, "size",
        "Width of the model, a multiple of the heads. Default: 128 (CUDA: 384).");

    private static readonly Option<double?> s_learningRate = Number<double>(
        "--lr", minimum: 0, "rate",
        "Peak learning rate. Default: 6e-3 (CUDA: 2e-3).");

    private static readonly Option<ulong?> s_seed = Number<ulong>(
        "--seed", minimum: 0, "number",
        "Seed of weights, batches and generated text. Default: 1.");

    private static readonly Option<string> s_device = new("--device")
    {
        Description = "Where to compute. auto: the GPU if libtorch finds one.",
        DefaultValueFactory = _ => "auto",
    };

    private static readonly Option<string?> s_attentionType = new("--dtype")
    {
        Description = "Type of q, k and v; weights and states are fp32. Default: fp32 (CUDA: bf16). "
            + "Given fp32, CUDA does not round to TF32 anywhere.",
    };

    private static readonly Option<string?> s_out = new("--out")
    {
        Description = "Folder for the checkpoint and the chart. Default: artifacts/charlm of the repository.",
        HelpName = "folder",
    };

    private static readonly Option<string?> s_checkpoint = new("--checkpoint")
    {
        Description = "Checkpoint file. Default: charlm.ckpt in the folder of --out.",
        HelpName = "file",
    };

    private static readonly Option<string?> s_losses = new("--losses")
    {
        Description = "Also write the training loss of each step: its number, a tab, nats per byte.",
        HelpName = "file",
    };

    private static readonly Option<bool> s_resume = new("--resume")
    {
        Description = "Go on from the checkpoint, with its sizes and settings where none are given.",
    };

    private static readonly Option<int?> s_generate = Number<int>(
        "--generate", minimum: 0, "bytes",
        "Bytes of text to write in the end. Default: 600.");

    private static readonly Option<string?> s_prompt = new("--prompt")
    {
        Description = "What the text goes on from. Default: a few lines of the held-out data.",
        HelpName = "text",
    };

    private static readonly Option<double?> s_temperature = Number<double>(
        "--temperature", minimum: 0, "value",
        "Randomness of the text; 0 takes the likeliest byte every time. Default: 0.7.");

    public static RootCommand Create(Func<Options, int> run)
    {
        s_device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        s_attentionType.AcceptOnlyFromAmong("fp32", "bf16", "fp16");

        var command = new RootCommand(
            "Trains a byte-level language model with lightning attention on text, then writes text with it.");
        Option[] options =
        [
            s_data, s_maxMinutes, s_steps, s_batch, s_sequenceLength, s_layers, s_heads, s_dim, s_learningRate, s_seed,
            s_device, s_attentionType, s_out, s_checkpoint, s_losses, s_resume, s_generate, s_prompt, s_temperature,
        ];
        foreach (var option in options)
        {
            command.Options.Add(option);
        }

        command.SetAction(result => run(Read(result)));
        return command;
    }

    private static Options Read(ParseResult result) =>
        new()
        {
            Data = result.GetValue(s_data),
            MaxMinutes = result.GetValue(s_maxMinutes),
            Steps = result.GetValue(s_steps),
            Batch = result.GetValue(s_batch),
            SequenceLength = result.GetValue(s_sequenceLength),
            Layers = result.GetValue(s_layers),
            Heads = result.GetValue(s_heads),
            Dim = result.GetValue(s_dim),
            LearningRate = result.GetValue(s_learningRate),
            Seed = result.GetValue(s_seed),
            Device = result.GetRequiredValue(s_device),
            AttentionType = result.GetValue(s_attentionType),
            Out = result.GetValue(s_out),
            Checkpoint = result.GetValue(s_checkpoint),
            LossesFile = result.GetValue(s_losses),
            Resume = result.GetValue(s_resume),
            Generate = result.GetValue(s_generate),
            Prompt = result.GetValue(s_prompt),
            Temperature = result.GetValue(s_temperature),
        };

    private static Option<T?> Number<T>(string name, T minimum, string helpName, string description)
        where T : struct, INumber<T> =>
        new(name)
        {
            Description = description,
            HelpName = helpName,
            CustomParser = result =>
            {
                var text = result.Tokens[0].Value;
                var kind = typeof(T) == typeof(double) ? "a number" : "a whole number";
                if (T.TryParse(text, CultureInfo.InvariantCulture, out var value)
                    && T.IsFinite(value) && value >= minimum)
                {
                    return value;
                }

                result.AddError($"{name} {text}: must be {kind}, at least {minimum}");
                return null;
            },
        };
}
