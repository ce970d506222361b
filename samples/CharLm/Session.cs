using System.Diagnostics;
using System.Text;
using CharLm.Model;
using LightningAttn;
using TorchSharp;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>One run of the program: train, report, write text.</summary>
internal static class Session
{
    private const int PromptBytes = 200;
    private const int DefaultGeneratedBytes = 600;
    private const double DefaultTemperature = 0.7;

    public static void Run(Options options, CancellationToken cancellation)
    {
        var device = ComputeOptions.ResolveDevice(options.Device);
        var resume = options.Resume ? Checkpoint.Open(options.CheckpointFile) : null;
        var attentionType = ComputeOptions.ResolveAttentionType(options.AttentionType, device);
        backends.cuda.matmul.allow_tf32 = attentionType != float32;
        var config = options.ResolveModel(resume?.Header.Model, device);
        var corpus = Corpus.Load(options.Data, options.ResolveSequenceLength(resume?.Header.Training, device));
        var training = options.ResolveTraining(resume?.Header.Training, device, corpus);
        CreateFolderOf(options.CheckpointFile);
        CreateFolderOf(options.ChartFile);
        if (options.LossesFile is { } lossesFile)
        {
            CreateFolderOf(lossesFile);
        }

        // On the CPU and then moved: each device starts from the same weights.
        random.manual_seed((long)training.Seed);
        using var model = new ByteLanguageModel(config, attentionType);
        model.to(device);
        using var trainer = new Trainer(model, corpus, training, options.CheckpointFile, resume);

        var computing = $"{device.type.ToString().ToLowerInvariant()}, q, k, v in {attentionType}";
        Describe(corpus, model, computing);
        if (resume is not null)
        {
            DescribeResume(resume.Header, corpus);
        }

        TrainingDisplay.Show(report => trainer.Run(report, cancellation));
        Summarise(options, corpus, trainer, computing);
        if (cancellation.IsCancellationRequested)
        {
            Console.WriteLine("interrupted; go on with --resume");
            return;
        }

        Write(options, training.Seed, corpus, model, cancellation);
    }

    private static void Describe(Corpus corpus, ByteLanguageModel model, string computing)
    {
        var weights = model.parameters().Sum(p => p.numel());
        Console.WriteLine(
            $"data    {corpus.Source}: {corpus.FileCount} files, {corpus.Training.Length:N0} bytes to train on, "
            + $"{corpus.Validation.Length:N0} held out");
        Console.WriteLine($"model   {model.Config}, {weights:N0} weights");
        Console.WriteLine($"device  {computing}");
        Console.WriteLine($"library {Native.BuildInfo}");
    }

    private static void DescribeResume(CheckpointHeader header, Corpus corpus)
    {
        var data = header.Corpus == corpus.Fingerprint ? "" : "; the data have changed since";
        Console.WriteLine($"resumed at step {header.History.Step}{data}");
    }

    private static void Summarise(Options options, Corpus corpus, Trainer trainer, string computing)
    {
        if (trainer.Speed is { TimedSteps: > 0 } speed)
        {
            Console.WriteLine(
                $"training speed  {speed.TokensPerSecond:F0} tokens/s: {computing}, "
                + $"{speed.TimedSteps} steps of {speed.TokensPerStep} tokens (bytes)");
        }

        if (options.LossesFile is { } lossesFile)
        {
            trainer.History.WriteTrainingLosses(lossesFile);
        }

        var loss = trainer.Validate();
        Console.WriteLine(
            $"validation loss {loss:F3} nats/byte after {trainer.History.Step} steps, "
            + $"unigram model {corpus.UnigramLoss:F3}");
        Console.WriteLine($"loss curve      {SaveChart(options.ChartFile, trainer.History, corpus.UnigramLoss)}");
        Console.WriteLine($"checkpoint      {options.CheckpointFile}");
    }

    /// <summary>The file, or why there is none: a machine that cannot draw can train all the same.</summary>
    private static string SaveChart(string file, TrainingHistory history, double unigramLoss)
    {
        try
        {
            LossChart.Save(file, history, unigramLoss);
            return file;
        }
        catch (Exception e) when (e is DllNotFoundException or TypeInitializationException)
        {
            return $"left out: {e.GetBaseException().Message.Split(". ")[0]}";
        }
    }

    private static void Write(
        Options options, ulong seed, Corpus corpus, ByteLanguageModel model, CancellationToken cancellation)
    {
        var count = options.Generate ?? DefaultGeneratedBytes;
        if (count == 0)
        {
            return;
        }

        var prompt = options.Prompt is { Length: > 0 } text ? Encoding.UTF8.GetBytes(text) : PromptOf(corpus, seed);
        Console.WriteLine($"\n--- prompt\n{Encoding.UTF8.GetString(prompt)}\n--- continued");
        var output = new TextStream(Console.Out);
        var clock = Stopwatch.StartNew();
        var temperature = options.Temperature ?? DefaultTemperature;
        var written = 0;
        foreach (var next in Generator.Continue(model, prompt, temperature, seed).Take(count))
        {
            output.Write(next);
            written++;
            if (cancellation.IsCancellationRequested)
            {
                break;
            }
        }

        Console.WriteLine($"\n--- {written} bytes, {written / clock.Elapsed.TotalSeconds:F0} per second");
    }

    /// <summary>
    /// Whole lines from somewhere in the held-out text. They begin with a line that is not indented where there is one,
    /// since a model this small that is asked to go on with an indentation may not find its end.
    /// </summary>
    private static byte[] PromptOf(Corpus corpus, ulong seed)
    {
        var text = corpus.Validation.AsSpan();
        text = text[(int)new SplitMix64(seed).NextBelow(Math.Max(1, text.Length - PromptBytes))..];
        var first = FirstUnindentedLine(text);
        var piece = text.Slice(first, Math.Min(PromptBytes, text.Length - first));
        var last = piece.LastIndexOf((byte)'\n');
        return (last > 0 ? piece[..(last + 1)] : piece).ToArray();
    }

    private static int FirstUnindentedLine(ReadOnlySpan<byte> text)
    {
        for (var i = 1; i < text.Length - PromptBytes; i++)
        {
            if (text[i - 1] == '\n' && char.IsAsciiLetter((char)text[i]))
            {
                return i;
            }
        }

        return 0;
    }

    private static void CreateFolderOf(string file)
    {
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(file))!);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"cannot create the folder of {file}: {e.Message}", e);
        }
    }
}
