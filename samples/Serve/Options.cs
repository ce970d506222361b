using CharLm;
using CharLm.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Serve;

/// <summary>What the command line says; null where it says nothing.</summary>
internal sealed record Options
{
    public string? Model { get; init; }

    public int? Layers { get; init; }

    public int? Heads { get; init; }

    public int? Dim { get; init; }

    public required string Device { get; init; }

    public string? AttentionType { get; init; }

    public int? Streams { get; init; }

    public int? MaxPrefillTokens { get; init; }

    public int? ChunkTokens { get; init; }

    public int? Requests { get; init; }

    public double? Rate { get; init; }

    public int? LongestPrompt { get; init; }

    public int? MostNewTokens { get; init; }

    public string? Data { get; init; }

    public ulong Seed { get; init; }

    public bool Verify { get; init; }

    public EngineConfig ResolveEngine(Device device)
    {
        var large = device.type == DeviceType.CUDA;
        return new EngineConfig
        {
            Streams = Streams ?? (large ? 256 : 32),
            MaxPrefillTokens = MaxPrefillTokens ?? Math.Max(ChunkTokens ?? 0, large ? 8192 : 256),
            ChunkTokens = ChunkTokens ?? Math.Min(MaxPrefillTokens ?? int.MaxValue, large ? 2048 : 128),
            RecordLogits = Verify,
        }.Checked();
    }

    public IReadOnlyList<Request> ResolveRequests(Device device)
    {
        var large = device.type == DeviceType.CUDA;
        return Workload.Create(
            Seed,
            Requests ?? (large ? 500 : 100),
            Rate ?? (large ? 4 : 0.75),
            LongestPrompt ?? (large ? 16384 : 600),
            MostNewTokens ?? (large ? 128 : 64),
            Data is null ? null : ReadText(Data));
    }

    /// <summary>The model on the device, and where its weights come from.</summary>
    public (ByteLanguageModel Model, string Source) LoadModel(Device device, ScalarType attentionType)
    {
        var checkpoint = Model is null ? null : Checkpoint.Open(Model);
        if (checkpoint is not null && (Layers ?? Heads ?? Dim) is not null)
        {
            throw new UserErrorException("--model has sizes of its own: leave --layers, --heads and --dim out");
        }

        if (checkpoint is null)
        {
            return (
                RandomModel.Create(RandomSizes(device), attentionType, Seed, device), $"random weights of seed {Seed}");
        }

        ComputeOptions.CheckModel(checkpoint.Header.Model, device);
        var model = new ByteLanguageModel(checkpoint.Header.Model, attentionType);
        checkpoint.Restore(model);
        model.to(device);
        return (model, Model!);
    }

    private ModelConfig RandomSizes(Device device)
    {
        var large = device.type == DeviceType.CUDA;
        var config = new ModelConfig
        {
            Layers = Layers ?? (large ? 6 : 4),
            Heads = Heads ?? (large ? 12 : 8),
            Dim = Dim ?? (large ? 384 : 128),
        };
        ComputeOptions.CheckModel(config, device);
        return config;
    }

    private static byte[] ReadText(string path) =>
        !File.Exists(path) ? throw new UserErrorException($"--data: no such file: {path}")
        : File.ReadAllBytes(path) is { Length: > 0 } text ? text
        : throw new UserErrorException($"--data: {path} is empty");
}
