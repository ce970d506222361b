using Serve;

namespace LightningAttn.Tests.Samples;

/// <summary>The sample's scheduler: limits, order, and chunks that depend on the prompt alone.</summary>
internal sealed class SchedulerTests
{
    private static readonly EngineConfig s_config = new() { Streams = 5, MaxPrefillTokens = 100, ChunkTokens = 32 };

    /// <summary>Whatever arrives when, without a model: each step every stream that decodes gets a token.</summary>
    [Test]
    public void LimitsHoldAndPromptsAreReadInOrder([Range(1, 20)] int seed)
    {
        IReadOnlyList<Request> requests = Workload.Create((ulong)seed, 200, perStep: 0.6, 300, 12, text: null);
        using var pool = new StatePool(1, s_config.Streams, 1, 1, 1);
        var scheduler = new Scheduler(s_config, pool);
        var chunksOf = requests.ToDictionary(
            static request => request, static _ => new List<(int Start, int Length)>());
        var finished = new List<Request>();
        int admitted = 0;
        int arrived = 0;
        for (int step = 0; finished.Count < requests.Count; step++)
        {
            Assert.That(step, Is.LessThan(20_000), "the scheduler stands still");
            for (; arrived < requests.Count && requests[arrived].ArrivalStep <= step; arrived++)
            {
                scheduler.Submit(requests[arrived]);
            }

            List<GenerationStream> decoding = scheduler.Decoding();
            List<PromptChunk> chunks = scheduler.TakeChunks();
            Assert.That(chunks.Sum(static chunk => chunk.Length), Is.LessThanOrEqualTo(s_config.MaxPrefillTokens));
            Assert.That(chunks.Select(static chunk => chunk.Stream), Is.Unique);
            Assert.That(chunks.Select(static chunk => chunk.Stream).Intersect(decoding), Is.Empty);
            Assert.That(scheduler.Streams, Has.Count.LessThanOrEqualTo(s_config.Streams));
            Assert.That(scheduler.Streams.Select(static stream => stream.Slot.Index), Is.Unique);
            foreach (PromptChunk chunk in chunks)
            {
                Request request = chunk.Stream.Request;
                if (chunk.IsFirst)
                {
                    Assert.That(request.Id, Is.EqualTo(admitted++), "somebody overtook");
                }

                chunksOf[request].Add((chunk.Start, chunk.Length));
                if (chunk.IsLast)
                {
                    chunk.Stream.Append(0, null);
                }
            }

            decoding.ForEach(static stream => stream.Append(0, null));
            finished.AddRange(scheduler.RemoveFinished().Select(static stream => stream.Request));
            Assert.That(pool.Available, Is.EqualTo(s_config.Streams - scheduler.Streams.Count));
        }

        Assert.That(scheduler.IsIdle || arrived < requests.Count, Is.True);
        Assert.That(finished, Is.EquivalentTo(requests));
        foreach ((Request request, List<(int Start, int Length)> chunks) in chunksOf)
        {
            Assert.That(chunks, Is.EqualTo(ChunksAlone(request.Prompt.Length)), $"{request.Prompt.Length} tokens");
        }
    }

    [Test]
    public void AWorkloadFollowsFromItsSeed()
    {
        IReadOnlyList<Request> first = Workload.Create(3, 50, 0.5, 1000, 40, null);
        IReadOnlyList<Request> again = Workload.Create(3, 50, 0.5, 1000, 40, null);
        IReadOnlyList<Request> other = Workload.Create(4, 50, 0.5, 1000, 40, null);

        Assert.That(again.Select(Text), Is.EqualTo(first.Select(Text)));
        Assert.That(other.Select(Text), Is.Not.EqualTo(first.Select(Text)));
        Assert.That(first.Select(static request => request.ArrivalStep), Is.Ordered);
        Assert.That(first.Select(static request => request.Prompt.Length), Is.All.InRange(1, 1000));
        Assert.That(first.Select(static request => request.NewTokens), Is.All.InRange(20, 40));
        Assert.That(
            Workload.Create(3, 50, 0.5, 1000, 1, [.. "abc"u8]).Select(static request => request.Prompt.Length),
            Is.All.InRange(1, 3));

        static string Text(Request request) =>
            $"{request.ArrivalStep} {request.NewTokens} {Convert.ToHexString(request.Prompt)}";
    }

    [Test]
    public void PercentilesAreThoseOfSortedTimes()
    {
        var times = new StepTimes();
        Assert.That(times.Percentile(0.5), Is.NaN);
        foreach (int ms in Enumerable.Range(1, 200).Reverse())
        {
            times.Add(TimeSpan.FromMilliseconds(ms));
        }

        Assert.That(times.Percentile(0.5), Is.EqualTo(100));
        Assert.That(times.Percentile(0.99), Is.EqualTo(198));
    }

    private static IEnumerable<(int Start, int Length)> ChunksAlone(int tokens)
    {
        for (int start = 0; start < tokens; start += s_config.ChunkTokens)
        {
            yield return (start, Math.Min(s_config.ChunkTokens, tokens - start));
        }
    }
}
