using LightningAttn;

namespace Serve;

/// <summary>
/// Who is served in a step: requests wait in the order of their arrival for a slot and for room among the prompt tokens
/// of a step; a stream whose prompt is read takes part in every step until it is finished.
/// </summary>
internal sealed class Scheduler(EngineConfig config, StatePool pool)
{
    private readonly Queue<Request> _waiting = new();
    private readonly List<GenerationStream> _streams = []; // in the order of their arrival

    public int Waiting => _waiting.Count;

    public IReadOnlyList<GenerationStream> Streams => _streams;

    public bool IsIdle => _waiting.Count == 0 && _streams.Count == 0;

    public void Submit(Request request) => _waiting.Enqueue(request);

    /// <summary>The streams that a token is decoded for: those whose prompt has been read.</summary>
    public List<GenerationStream> Decoding() => _streams.FindAll(stream => stream.PromptIsRead);

    /// <summary>
    /// The chunks of prompts to read in this step, at most one of a stream, whole ones only. Nobody overtakes: where
    /// the next chunk does not fit, the step's prompts end.
    /// </summary>
    public List<PromptChunk> TakeChunks()
    {
        var chunks = new List<PromptChunk>();
        var left = config.MaxPrefillTokens;
        foreach (var stream in _streams.Where(stream => !stream.PromptIsRead))
        {
            var chunk = stream.NextChunk(config.ChunkTokens);
            if (chunk.Length > left)
            {
                return chunks;
            }

            left -= Take(chunk);
        }

        while (_waiting.TryPeek(out var request)
            && Math.Min(request.Prompt.Length, config.ChunkTokens) <= left
            && pool.TryAllocate(out var slot))
        {
            var stream = new GenerationStream(_waiting.Dequeue(), slot);
            _streams.Add(stream);
            left -= Take(stream.NextChunk(config.ChunkTokens));
        }

        return chunks;

        int Take(PromptChunk chunk)
        {
            chunks.Add(chunk);
            chunk.Stream.Advance(chunk);
            return chunk.Length;
        }
    }

    /// <summary>Takes the finished streams out, and their slots back.</summary>
    public List<GenerationStream> RemoveFinished()
    {
        var finished = _streams.FindAll(stream => stream.IsFinished);
        finished.ForEach(stream => pool.Free(stream.Slot));
        _streams.RemoveAll(stream => stream.IsFinished);
        return finished;
    }
}
