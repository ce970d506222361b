using System.CommandLine;

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

    private static readonly Option<double?> s_maxMinutes = NumberOption.Create<double>(
        "--max-minutes", minimum: 0, "minutes",
        "Train this long; a resumed run counts the time before as well. "
        + "Default: 2, or 12 passes over the data if that is sooner.");

    private static readonly Option<int?> s_steps = NumberOption.Create<int>(
        "--steps", minimum: 0, "count",
        "Train this many steps instead: the same seed then gives the same model. 0 only generates.");

    private static readonly Option<int?> s_batch = NumberOption.Create<int>(
        "--batch", minimum: 1, "count",
        "Sequences per step. Default: 8 (CUDA: 16).");

    private static readonly Option<int?> s_sequenceLength = NumberOption.Create<int>(
        "--seq-len", minimum: 1, "bytes",
        "Bytes per sequence. Default: 128 (CUDA: 512).");

    private static readonly Option<int?> s_layers = NumberOption.Create<int>(
        "--layers", minimum: 1, "count",
        "Decoder blocks. Default: 4 (CUDA: 6).");

    private static readonly Option<int?> s_heads = NumberOption.Create<int>(
        "--heads", minimum: 1, "count",
        "Attention heads. Default: 8 (CUDA: 12).");

    private static readonly Option<int?> s_dim = NumberOption.Create<int>(
        "--dim", minimum: 1, "size",
        "Width of the model, a multiple of the heads. Default: 128 (CUDA: 384).");

    private static readonly Option<double?> s_learningRate = NumberOption.Create<double>(
        "--lr", minimum: 0, "rate",
        "Peak learning rate. Default: 6e-3 (CUDA: 2e-3).");

    private static readonly Option<ulong?> s_seed = NumberOption.Create<ulong>(
        "--seed", minimum: 0, "number",
        "Seed of weights, batches and generated text. Default: 1.");

    private static readonly ComputeOptions s_compute = new();

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

    private static readonly Option<int?> s_generate = NumberOption.Create<int>(
        "--generate", minimum: 0, "bytes",
        "Bytes of text to write in the end. Default: 600.");

    private static readonly Option<string?> s_prompt = new("--prompt")
    {
        Description = "What the text goes on from. Default: a few lines of the held-out data.",
        HelpName = "text",
    };

    private static readonly Option<double?> s_temperature = NumberOption.Create<double>(
        "--temperature", minimum: 0, "value",
        "Randomness of the text; 0 takes the likeliest byte every time. Default: 0.7.");

    public static RootCommand Create(Func<Options, int> run)
    {
        var command = new RootCommand(
            "Trains a byte-level language model with lightning attention on text, then writes text with it.");
        Option[] options =
        [
            s_data, s_maxMinutes, s_steps, s_batch, s_sequenceLength, s_layers, s_heads, s_dim, s_learningRate, s_seed,
            s_compute.Device, s_compute.AttentionType, s_out, s_checkpoint, s_losses, s_resume, s_generate, s_prompt, s_temperature,
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
            Device = result.GetRequiredValue(s_compute.Device),
            AttentionType = result.GetValue(s_compute.AttentionType),
            Out = result.GetValue(s_out),
            Checkpoint = result.GetValue(s_checkpoint),
            LossesFile = result.GetValue(s_losses),
            Resume = result.GetValue(s_resume),
            Generate = result.GetValue(s_generate),
            Prompt = result.GetValue(s_prompt),
            Temperature = result.GetValue(s_temperature),
        };
}
