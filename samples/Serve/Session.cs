using System.Diagnostics;
using CharLm;
using CharLm.Model;
using LightningAttn;
using TorchSharp;
using static TorchSharp.torch;

namespace Serve;

/// <summary>One run of the program: serve, report, verify.</summary>
internal static class Session
{
    private const int NotTheSame = 3;

    /// <returns>The exit code.</returns>
    public static int Run(Options options, CancellationToken cancellation)
    {
        var device = ComputeOptions.ResolveDevice(options.Device);
        var attentionType = ComputeOptions.ResolveAttentionType(options.AttentionType, device);
        backends.cuda.matmul.allow_tf32 = attentionType != float32;
        FixedShapes.LimitThreads();
        var config = options.ResolveEngine(device);
        var requests = options.ResolveRequests(device);
        var (model, source) = options.LoadModel(device, attentionType);
        using (model)
        {
            Console.WriteLine($"model    {model.Config}: {source}");
            Console.WriteLine($"device   {device.type.ToString().ToLowerInvariant()}, q, k, v in {attentionType}");
            Console.WriteLine($"library  {Native.BuildInfo}");
            var finished = Serve(model, config, device, requests, cancellation);
            return options.Verify && !cancellation.IsCancellationRequested
                ? Verify(model, config, device, finished, cancellation)
                : 0;
        }
    }

    private static List<GenerationStream> Serve(
        ByteLanguageModel model,
        EngineConfig config,
        Device device,
        IReadOnlyList<Request> requests,
        CancellationToken cancellation)
    {
        using var engine = new Engine(model, config, device);
        Console.WriteLine(
            $"engine   {config.Streams} streams, {config.MaxPrefillTokens} prompt tokens per step in chunks of "
            + $"{config.ChunkTokens}");
        Console.WriteLine($"states   {engine.Memory}");
        var prompts = requests.Select(request => request.Prompt.Length).ToArray();
        Console.WriteLine(
            $"requests {requests.Count}: prompts of {prompts.Min()} to {prompts.Max()} bytes, {prompts.Sum():N0} in "
            + $"all; {requests.Sum(request => request.NewTokens):N0} bytes to generate");
        engine.WarmUp();
        List<GenerationStream> finished = [];
        Display.Show(report => finished = Server.Run(engine, requests, report, cancellation));
        if (cancellation.IsCancellationRequested)
        {
            Console.WriteLine(
                $"interrupted; {engine.Active} streams and {engine.Waiting} waiting requests were dropped");
        }

        return finished;
    }

    private static int Verify(
        ByteLanguageModel model,
        EngineConfig config,
        Device device,
        List<GenerationStream> finished,
        CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        Verification? result = null;
        Display.ShowVerification(
            finished.Count,
            report => result = Verifier.Run(model, config, device, finished, report, cancellation));
        var compared = $"{result!.Streams} of {finished.Count} streams served again alone in "
            + $"{clock.Elapsed.TotalSeconds:F1} s, {result.Tokens:N0} bytes";
        if (result.Different == 0)
        {
            Console.WriteLine($"verified {compared}: every byte, and every bit of its logits, is the same");
            return 0;
        }

        Console.WriteLine($"NOT THE SAME: {result.Different} streams; {compared}");
        Console.WriteLine($"the first difference: {result.FirstDifference}");
        return NotTheSame;
    }
}
