using System.CommandLine;
using CharLm;

namespace Serve;

/// <summary>The options of the program and their help.</summary>
internal static class CommandLine
{
    private static readonly ComputeOptions s_compute = new();

    private static readonly Option<string?> s_model = new("--model")
    {
        Description = "Checkpoint of the sample CharLm. "
            + "Default: random weights, which write nonsense at the same speed.",
        HelpName = "file",
    };

    private static readonly Option<int?> s_layers = NumberOption.Create<int>(
        "--layers", minimum: 1, "count", "Decoder blocks of the random model. Default: 4 (CUDA: 6).");

    private static readonly Option<int?> s_heads = NumberOption.Create<int>(
        "--heads", minimum: 1, "count", "Its attention heads. Default: 8 (CUDA: 12).");

    private static readonly Option<int?> s_dim = NumberOption.Create<int>(
        "--dim", minimum: 1, "size", "Its width, a multiple of the heads. Default: 128 (CUDA: 384).");

    private static readonly Option<int?> s_streams = NumberOption.Create<int>(
        "--streams", minimum: 1, "count",
        "Streams that are served at a time, the slots of the pool. Default: 32 (CUDA: 256).");

    private static readonly Option<int?> s_maxPrefillTokens = NumberOption.Create<int>(
        "--max-prefill-tokens", minimum: 1, "bytes",
        "Prompt tokens that are read in one step. Default: 256 (CUDA: 8192).");

    private static readonly Option<int?> s_chunk = NumberOption.Create<int>(
        "--chunk", minimum: 1, "bytes",
        "Longer prompts are read in chunks of so many tokens, in as many steps. Default: 128 (CUDA: 2048).");

    private static readonly Option<int?> s_requests = NumberOption.Create<int>(
        "--requests", minimum: 1, "count", "Requests to serve. Default: 100 (CUDA: 500).");

    private static readonly Option<double?> s_rate = NumberOption.Create<double>(
        "--rate", minimum: 1e-6, "value", "Mean number of requests that arrive per step. Default: 0.75 (CUDA: 4).");

    private static readonly Option<int?> s_longestPrompt = NumberOption.Create<int>(
        "--max-prompt", minimum: 1, "bytes", "Longest prompt; most are much shorter. Default: 600 (CUDA: 16384).");

    private static readonly Option<int?> s_mostNewTokens = NumberOption.Create<int>(
        "--max-new-tokens", minimum: 1, "bytes",
        "Most bytes to generate for a request; at least half of them. Default: 64 (CUDA: 128).");

    private static readonly Option<string?> s_data = new("--data")
    {
        Description = "Text file that prompts are pieces of. Default: words of random letters.",
        HelpName = "file",
    };

    private static readonly Option<ulong?> s_seed = NumberOption.Create<ulong>(
        "--seed", minimum: 0, "number", "Seed of the requests and of random weights. Default: 1.");

    private static readonly Option<bool> s_verify = new("--verify")
    {
        Description = "Then serve each prompt alone and compare bytes and the bits of the logits. "
            + "Exit code 3 if any differ.",
    };

    public static RootCommand Create(Func<Options, int> run)
    {
        var command = new RootCommand(
            "Serves many generation streams at a time with continuous batching: requests come and go, prompts are read "
            + "in packed chunks, and one call decodes a token for every stream.");
        Option[] options =
        [
            s_model, s_layers, s_heads, s_dim, s_compute.Device, s_compute.AttentionType, s_streams, s_maxPrefillTokens,
            s_chunk, s_requests, s_rate, s_longestPrompt, s_mostNewTokens, s_data, s_seed, s_verify,
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
            Model = result.GetValue(s_model),
            Layers = result.GetValue(s_layers),
            Heads = result.GetValue(s_heads),
            Dim = result.GetValue(s_dim),
            Device = result.GetRequiredValue(s_compute.Device),
            AttentionType = result.GetValue(s_compute.AttentionType),
            Streams = result.GetValue(s_streams),
            MaxPrefillTokens = result.GetValue(s_maxPrefillTokens),
            ChunkTokens = result.GetValue(s_chunk),
            Requests = result.GetValue(s_requests),
            Rate = result.GetValue(s_rate),
            LongestPrompt = result.GetValue(s_longestPrompt),
            MostNewTokens = result.GetValue(s_mostNewTokens),
            Data = result.GetValue(s_data),
            Seed = result.GetValue(s_seed) ?? 1,
            Verify = result.GetValue(s_verify),
        };
}
