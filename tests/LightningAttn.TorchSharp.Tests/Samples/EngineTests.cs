using CharLm.Model;
using LightningAttn.Tests.Support;
using Serve;

namespace LightningAttn.Tests.Samples;

/// <summary>The sample's engine: what it generates, and that nobody else's presence shows in it.</summary>
internal sealed class EngineTests(DeviceType deviceType) : OperatorFixture(deviceType)
{
    private static readonly ModelConfig s_sizes = new() { Layers = 2, Heads = 4, Dim = 64 };

    private static readonly EngineConfig s_config =
        new() { Streams = 9, MaxPrefillTokens = 128, ChunkTokens = 64, RecordLogits = true };

    private int _threads;

    [SetUp]
    public void LimitThreads()
    {
        _threads = torch.get_num_threads();
        FixedShapes.LimitThreads();
    }

    [TearDown]
    public void RestoreThreads() => torch.set_num_threads(_threads);

    [Test]
    public void EveryStreamIsBitwiseAsAlone(
        [Values(ScalarType.Float32, ScalarType.BFloat16)] ScalarType attentionType)
    {
        using ByteLanguageModel model = Model(attentionType);
        List<GenerationStream> together = Serve(model, Requests(1, 20));
        Verification result = Verifier.Run(
            model, s_config, Device, together, static _ => { }, CancellationToken.None);

        Assert.That(result.FirstDifference, Is.Null);
        Assert.That((result.Streams, result.Different), Is.EqualTo((20, 0)));
        Assert.That(result.Tokens, Is.EqualTo(together.Sum(static stream => stream.Request.NewTokens)));

        // A model that says the same whatever it reads would pass all that.
        Assert.That(
            together.SelectMany(static stream => stream.Logits).Distinct().Count(), Is.GreaterThan(result.Tokens / 2));
        Assert.That(together.SelectMany(static stream => stream.Generated).Distinct().Count(), Is.GreaterThan(20));
    }

    [Test]
    public void AVerificationSeesADifference()
    {
        using ByteLanguageModel model = Model(ScalarType.Float32);
        List<GenerationStream> together = Serve(model, Requests(1, 5));
        using ByteLanguageModel other = Model(ScalarType.Float32, seed: 2);
        Verification result = Verifier.Run(
            other, s_config, Device, together, static _ => { }, CancellationToken.None);

        Assert.That(result.Different, Is.EqualTo(5));
        Assert.That(result.FirstDifference, Does.StartWith("request "));
    }

    /// <summary>The bytes are the likeliest ones of the whole text, as the model sees it in training.</summary>
    [Test]
    public void TheGeneratedBytesAreThoseOfTheModel()
    {
        using ByteLanguageModel model = Model(ScalarType.Float32);
        foreach (GenerationStream stream in Serve(model, Requests(3, 12)))
        {
            using var scope = torch.NewDisposeScope();
            using var noGrad = torch.no_grad();
            byte[] prompt = stream.Request.Prompt;
            long[] text = [.. prompt.Concat(stream.Generated).Select(static value => (long)value)];
            Tensor logits = model.call(torch.tensor(text, 1, text.Length).to(Device), null).squeeze(0);
            Tensor before = logits.narrow(0, prompt.Length - 1, stream.Generated.Count);
            Tensor chosen = torch.tensor(text[prompt.Length..]).to(Device).unsqueeze(1);
            Tensor short_ = before.amax(new long[] { 1 }) - before.gather(1, chosen).squeeze(1);

            Assert.That(Values.Of(short_), Is.All.LessThan(1e-3), $"{prompt.Length} bytes of prompt");
        }
    }

    [Test]
    public void NothingIsLeftBehind()
    {
        using ByteLanguageModel model = Model(ScalarType.Float32);
        Serve(model, Requests(1, 5));
        using var scope = torch.NewDisposeScope();
        long before = Tensor.TotalCount;
        Serve(model, Requests(2, 20));

        Assert.That(scope.DisposablesCount, Is.Zero);
        Assert.That(Tensor.TotalCount, Is.EqualTo(before));
    }

    [Test]
    public void ARunEndsWhenItIsCancelled()
    {
        using ByteLanguageModel model = Model(ScalarType.Float32);
        using var engine = new Engine(model, s_config, Device);
        using var cancellation = new CancellationTokenSource();
        int steps = 0;
        Server.Run(
            engine,
            Requests(1, 20),
            status =>
            {
                steps = status.Steps;
                if (steps == 7)
                {
                    cancellation.Cancel();
                }
            },
            cancellation.Token);

        Assert.That(steps, Is.EqualTo(7));
        Assert.That(engine.IsIdle, Is.False);
    }

    private static IReadOnlyList<Request> Requests(int seed, int count) =>
        Workload.Create((ulong)seed, count, perStep: 0.7, longestPrompt: 250, mostNewTokens: 20, text: null);

    private List<GenerationStream> Serve(ByteLanguageModel model, IReadOnlyList<Request> requests)
    {
        using var engine = new Engine(model, s_config, Device);
        List<GenerationStream> finished = Server.Run(engine, requests, static _ => { }, CancellationToken.None);
        Assert.That(finished.Select(static stream => stream.Request), Is.EquivalentTo(requests));
        Assert.That(engine.Memory.InUse, Is.Zero);
        return finished;
    }

    private ByteLanguageModel Model(ScalarType attentionType, int seed = 1) =>
        RandomModel.Create(s_sizes, attentionType, (ulong)seed, Device);
}
