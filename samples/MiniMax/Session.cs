using System.Diagnostics;
using CharLm;
using LightningAttn;
using MiniMax.Checkpoints;
using MiniMax.Model;
using MiniMax.Verification;
using Spectre.Console;
using TorchSharp;
using static TorchSharp.torch;

namespace MiniMax;

/// <summary>One run of the program: load, then generate or verify.</summary>
internal static class Session
{
    private const int NotTheSame = 3;
    private const int DefaultGenerated = 32;
    private const int VerifiedChunk = 7; // divides neither prompts nor blocks

    /// <returns>The exit code.</returns>
    public static int Run(Options options, CancellationToken cancellation)
    {
        var device = ComputeOptions.ResolveDevice(options.Device);
        backends.cuda.matmul.allow_tf32 = false;
        var clock = Stopwatch.StartNew();
        using var model = MiniMaxCheckpoint.Load(options.Checkpoint);
        CheckHeads(model.Config, device);
        model.to(device);
        model.eval();
        Console.WriteLine($"model    {model.Config}");
        Console.WriteLine(
            $"weights  {model.parameters().Sum(weight => weight.numel()):N0} in fp32, loaded in "
            + $"{clock.Elapsed.TotalSeconds:F1} s");
        Console.WriteLine($"device   {device.type.ToString().ToLowerInvariant()}");
        Console.WriteLine($"library  {Native.BuildInfo}");
        if (options.Verify is { } file)
        {
            return Verify(model, file, device);
        }

        Generate(model, options, device, cancellation);
        return 0;
    }

    private static void CheckHeads(MiniMaxConfig config, Device device)
    {
        if (device.type == DeviceType.CUDA && (config.HeadDim is < 16 or > 256 || config.HeadDim % 8 != 0))
        {
            throw new UserErrorException(
                $"head_dim is {config.HeadDim}; on CUDA it must be a multiple of 8 from 16 to 256");
        }
    }

    private static void Generate(MiniMaxModel model, Options options, Device device, CancellationToken cancellation)
    {
        using var scope = NewDisposeScope();
        var prompt = options.ResolvePrompt(model.Config.VocabularySize);
        Console.WriteLine($"prompt   {string.Join(",", prompt)}");
        Console.Write("next     ");
        var clock = Stopwatch.StartNew();
        var written = 0;
        var tokens = tensor(prompt, 1, prompt.Length, device: device);
        foreach (var next in Generator.Continue(model, tokens, chunk: options.Chunk ?? 0)
            .Take(options.Generate ?? DefaultGenerated))
        {
            Console.Write($"{(written++ > 0 ? "," : "")}{next[0]}");
            if (cancellation.IsCancellationRequested)
            {
                break;
            }
        }

        Console.WriteLine($"\n         {written} tokens, {written / clock.Elapsed.TotalSeconds:F0} per second");
    }

    private static int Verify(MiniMaxModel model, string file, Device device)
    {
        var table = new Table().Border(TableBorder.Simple);
        table.AddColumn("compared with the reference");
        table.AddColumn(new TableColumn("largest").RightAligned());
        table.AddColumn(new TableColumn("rms").RightAligned());
        var passed = true;
        foreach (var kind in ReferenceRun.Kinds)
        {
            using var reference = ReferenceRun.Open(file, kind, model.Config);
            foreach (var difference in Verifier.Compare(model, reference, device))
            {
                table.AddRow(difference.What, $"{difference.Largest:E1}", $"{difference.Rms:E1}");
                passed &= difference.IsSmall;
            }

            foreach (var chunk in new[] { 0, VerifiedChunk })
            {
                var (same, all) = Verifier.CompareTokens(model, reference, device, chunk);
                var how = chunk == 0 ? "" : $", prompt in chunks of {chunk}";
                table.AddRow($"{kind}, generated tokens{how}", $"{same} of {all}", "");
                passed &= same == all;
            }
        }

        AnsiConsole.Write(table);
        Console.WriteLine(
            passed ? $"the same: differences up to {Difference.Limit}, and every token" : "NOT THE SAME");
        return passed ? 0 : NotTheSame;
    }
}
