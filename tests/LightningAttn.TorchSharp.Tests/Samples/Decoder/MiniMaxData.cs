namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>The checkpoints of tests/data/minimax.</summary>
internal static class MiniMaxData
{
    /// <summary>A power of two heads; weights packed, in one file.</summary>
    internal const string EightHeads = "eight-heads";

    /// <summary>Tied embeddings; weights per expert, in shards.</summary>
    internal const string SixHeads = "six-heads";

    internal static string Folder(string name) => Path.Combine(AppContext.BaseDirectory, "data", "minimax", name);

    internal static string Reference(string name) => Path.Combine(Folder(name), "reference.safetensors");
}
