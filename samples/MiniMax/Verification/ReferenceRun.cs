using CharLm;
using MiniMax.Model;
using MiniMax.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax.Verification;

/// <summary>
/// One text, or padded texts, and what transformers computes for them: written by tests/data/minimax/make_reference.py.
/// </summary>
internal sealed class ReferenceRun : IDisposable
{
    /// <summary>A text alone, and texts of several lengths with padding on the left.</summary>
    public static readonly string[] Kinds = ["prompt", "batch"];

    private readonly List<Tensor> _tensors = [];

    private ReferenceRun(string kind, SafetensorsFile file, MiniMaxConfig config)
    {
        Kind = kind;
        try
        {
            Tokens = Read(file, "input_ids", ScalarType.Int64, -1, -1);
            var (texts, tokens) = (Tokens.size(0), Tokens.size(1));
            using var mask = file.Read($"{kind}.attention_mask");
            Real = Keep(Checked(file, "attention_mask", mask, ScalarType.Int64, texts, tokens).ne(0));
            Logits = Read(file, "logits", ScalarType.Float32, texts, tokens, config.VocabularySize);
            Attention = [.. Enumerable.Range(0, config.Layers).Select(
                layer => Read(file, $"attention.{layer}", ScalarType.Float32, texts, tokens, config.HiddenSize))];
            Generated = Read(file, "generated", ScalarType.Int64, texts, -1);
            CheckTokens(file, Tokens, config.VocabularySize);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Kind { get; }

    /// <summary>[B, N], int64.</summary>
    public Tensor Tokens { get; }

    /// <summary>[B, N], bool, false where a token is padding.</summary>
    public Tensor Real { get; }

    /// <summary>[B, N, vocabulary].</summary>
    public Tensor Logits { get; }

    /// <summary>Per layer [B, N, hidden], the output of self_attn.</summary>
    public IReadOnlyList<Tensor> Attention { get; }

    /// <summary>[B, new tokens], int64: the likeliest token every time.</summary>
    public Tensor Generated { get; }

    /// <exception cref="SafetensorsException">The file cannot be read, or lacks a tensor.</exception>
    /// <exception cref="UserErrorException">A tensor does not fit the model.</exception>
    public static ReferenceRun Open(string path, string kind, MiniMaxConfig config)
    {
        using var file = SafetensorsFile.Open(path);
        return new ReferenceRun(kind, file, config);
    }

    public void Dispose() => _tensors.ForEach(tensor => tensor.Dispose());

    private Tensor Read(SafetensorsFile file, string name, ScalarType type, params long[] shape) =>
        Checked(file, name, Keep(file.Read($"{Kind}.{name}")), type, shape);

    /// <param name="file">For the message.</param>
    /// <param name="name">For the message.</param>
    /// <param name="tensor">Is returned.</param>
    /// <param name="type">What it must be of.</param>
    /// <param name="shape">What it must have; -1: any size but 0.</param>
    private Tensor Checked(SafetensorsFile file, string name, Tensor tensor, ScalarType type, params long[] shape)
    {
        var fits = tensor.dtype == type && tensor.dim() == shape.Length
            && shape.Zip(tensor.shape).All(pair => pair.First < 0 ? pair.Second > 0 : pair.Second == pair.First);
        return fits
            ? tensor
            : throw new UserErrorException(
                $"{file.Path}: {Kind}.{name} is {tensor.dtype} [{string.Join(", ", tensor.shape)}], expected {type} "
                + $"[{string.Join(", ", shape)}] for this model");
    }

    private void CheckTokens(SafetensorsFile file, Tensor tokens, long vocabularySize)
    {
        if (tokens.data<long>().Any(token => token < 0 || token >= vocabularySize))
        {
            throw new UserErrorException(
                $"{file.Path}: {Kind}.input_ids has a token that is not from 0 to {vocabularySize - 1}");
        }
    }

    private Tensor Keep(Tensor tensor)
    {
        _tensors.Add(tensor.DetachFromDisposeScope());
        return tensor;
    }
}
