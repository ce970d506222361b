using CharLm;
using MiniMax;
using Spectre.Console;

namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>The sample's program: exit codes and messages.</summary>
internal sealed class MiniMaxSessionTests
{
    private static readonly Options s_options = new()
    {
        Checkpoint = MiniMaxData.Folder(MiniMaxData.EightHeads),
        Verify = MiniMaxData.Reference(MiniMaxData.EightHeads),
        Device = "cpu",
    };

    private readonly StringWriter _written = new();
    private TextWriter _console = null!;
    private IAnsiConsole _ansiConsole = null!;
    private int _threads;

    [SetUp]
    public void Redirect()
    {
        (_console, _ansiConsole, _threads) = (Console.Out, AnsiConsole.Console, torch.get_num_threads());
        _written.GetStringBuilder().Clear();
        Console.SetOut(_written);
        AnsiConsole.Console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(_written) });
        torch.set_num_threads(1);
    }

    [TearDown]
    public void Restore()
    {
        Console.SetOut(_console);
        AnsiConsole.Console = _ansiConsole;
        torch.set_num_threads(_threads);
    }

    [OneTimeTearDown]
    public void Close() => _written.Dispose();

    [Test]
    public void AVerificationThatPassesReturnsZero()
    {
        Assert.That(Session.Run(s_options, CancellationToken.None), Is.Zero);
        Assert.That(_written.ToString(), Does.Contain("the same: ").And.Contain("32 of 32"));
    }

    [Test]
    public void TokensAreWritten()
    {
        Options options = s_options with { Verify = null, PromptIds = "1,2,3", Generate = 3, Chunk = 2 };
        Assert.That(Session.Run(options, CancellationToken.None), Is.Zero);
        Assert.That(_written.ToString(), Does.Contain("prompt   1,2,3").And.Contain("3 tokens"));
    }

    /// <summary>Logits of other weights: a copy of the checkpoint with one weight changed.</summary>
    [Test]
    public void AVerificationThatFailsReturnsThree()
    {
        using var folder = new TemporaryFolder();
        List<RawTensor> tensors = SafetensorsBytes.ReadFolder(s_options.Checkpoint);
        RawTensor norm = tensors.Single(static tensor => tensor.Name == "model.norm.weight");
        BitConverter.TryWriteBytes(norm.Data, 3f);
        folder.Write("model.safetensors", SafetensorsBytes.Write(tensors));
        File.Copy(Path.Combine(s_options.Checkpoint, "config.json"), folder.File("config.json"));

        Assert.That(Session.Run(s_options with { Checkpoint = folder.Path }, CancellationToken.None), Is.EqualTo(3));
        Assert.That(_written.ToString(), Does.Contain("NOT THE SAME"));
    }

    [Test]
    public void APromptIsChecked()
    {
        Options options = s_options with { PromptIds = "3, 5 95" };
        Assert.That(options.ResolvePrompt(96), Is.EqualTo(new long[] { 3, 5, 95 }));
        Refuse("--prompt-ids: 95 is no token from 0 to 94", () => options.ResolvePrompt(95));
        Refuse("--prompt-ids: -1 is no token", () => (options with { PromptIds = "-1" }).ResolvePrompt(95));
        Refuse("--prompt-ids has no token", () => (options with { PromptIds = " ," }).ResolvePrompt(95));

        static void Refuse(string message, Action use) =>
            Assert.That(use, Throws.TypeOf<UserErrorException>().With.Message.Contains(message));
    }

    [Test]
    public void AReferenceOfAnotherModelIsRefused()
    {
        Assert.That(
            () => Session.Run(
                s_options with { Verify = MiniMaxData.Reference(MiniMaxData.SixHeads) }, CancellationToken.None),
            Throws.TypeOf<UserErrorException>().With.Message.Contains(
                "prompt.logits is Float32 [1, 40, 80], expected Float32 [1, 40, 96]"));
        Assert.That(
            () => Session.Run(
                s_options with { Verify = Path.Combine(s_options.Checkpoint, "model.safetensors") },
                CancellationToken.None),
            Throws.TypeOf<MiniMax.Safetensors.SafetensorsException>().With.Message.Contains("prompt.input_ids"));
    }
}
