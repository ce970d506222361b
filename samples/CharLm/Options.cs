using CharLm.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>What the command line says; null where it says nothing.</summary>
internal sealed record Options
{
    private const double DefaultMaxMinutes = 2;
    private const int DefaultPasses = 12;

    public string? Data { get; init; }

    public string? Out { get; init; }

    public string? Checkpoint { get; init; }

    public string? LossesFile { get; init; }

    public bool Resume { get; init; }

    public int? Steps { get; init; }

    public double? MaxMinutes { get; init; }

    public int? Batch { get; init; }

    public int? SequenceLength { get; init; }

    public int? Layers { get; init; }

    public int? Heads { get; init; }

    public int? Dim { get; init; }

    public double? LearningRate { get; init; }

    public ulong? Seed { get; init; }

    public required string Device { get; init; }

    public string? AttentionType { get; init; }

    public int? Generate { get; init; }

    public string? Prompt { get; init; }

    public double? Temperature { get; init; }

    public string OutFolder =>
        Out ?? Path.Combine(Corpus.TryFindRepository() ?? Directory.GetCurrentDirectory(), "artifacts", "charlm");

    public string CheckpointFile => Checkpoint ?? Path.Combine(OutFolder, "charlm.ckpt");

    public string ChartFile => Path.Combine(OutFolder, "loss.png");

    /// <summary>The sizes asked for, those of the checkpoint, or the device's defaults.</summary>
    public ModelConfig ResolveModel(ModelConfig? saved, Device device)
    {
        var large = device.type == DeviceType.CUDA;
        var config = new ModelConfig
        {
            Layers = Layers ?? saved?.Layers ?? (large ? 6 : 4),
            Heads = Heads ?? saved?.Heads ?? (large ? 12 : 8),
            Dim = Dim ?? saved?.Dim ?? (large ? 384 : 128),
        };
        ComputeOptions.CheckModel(config, device);
        return saved is null || saved == config
            ? config
            : throw new UserErrorException(
                $"{CheckpointFile} holds a model of {saved}; it cannot be resumed with {config}");
    }

    public int ResolveSequenceLength(TrainingConfig? saved, Device device) =>
        SequenceLength ?? saved?.SequenceLength ?? (device.type == DeviceType.CUDA ? 512 : 128);

    /// <summary>The training asked for, else that of the checkpoint, else the device's defaults.</summary>
    public TrainingConfig ResolveTraining(TrainingConfig? saved, Device device, Corpus corpus)
    {
        var large = device.type == DeviceType.CUDA;
        var training = new TrainingConfig
        {
            Batch = Batch ?? saved?.Batch ?? (large ? 16 : 8),
            SequenceLength = ResolveSequenceLength(saved, device),
            LearningRate = LearningRate ?? saved?.LearningRate ?? (large ? 2e-3 : 6e-3),
            Seed = Seed ?? saved?.Seed ?? 1,
        };
        if (Steps is not null || MaxMinutes is not null)
        {
            return training with { Steps = Steps, MaxMinutes = MaxMinutes };
        }

        return saved is not null
            ? training with { Steps = saved.Steps, MaxMinutes = saved.MaxMinutes }
            : training with { Steps = StepsOfPasses(training, corpus), MaxMinutes = DefaultMaxMinutes };
    }

    // So that a fast device does not learn a small text by heart.
    private static int StepsOfPasses(TrainingConfig training, Corpus corpus)
    {
        var bytesPerStep = (double)training.Batch * training.SequenceLength;
        return (int)Math.Ceiling(DefaultPasses * corpus.Training.Length / bytesPerStep);
    }
}
