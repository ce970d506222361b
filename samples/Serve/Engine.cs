using System.Runtime.InteropServices;
using System.Security.Cryptography;
using CharLm.Model;
using LightningAttn;
using LightningAttn.Modules;
using TorchSharp;
using static TorchSharp.torch;

namespace Serve;

/// <summary>What a step did.</summary>
internal readonly record struct StepResult(
    int PromptTokens, int NewTokens, IReadOnlyList<GenerationStream> Finished);

/// <summary>
/// Serves many streams with one model: a step reads waiting prompts in one packed pass and decodes one token for every
/// stream in another.
/// </summary>
/// <remarks>
/// Both passes have the same shape in every step (<see cref="FixedShapes"/>). The likeliest byte is taken every time;
/// the bits of a stream's logits, and so its bytes, are those of the same prompt served alone.
/// </remarks>
internal sealed class Engine : IDisposable
{
    private readonly ByteLanguageModel _model;
    private readonly EngineConfig _config;
    private readonly Device _device;
    private readonly StatePool _pool;
    private readonly Scheduler _scheduler;
    private readonly int _prefillRows;
    private readonly int _decodeRows;

    public Engine(ByteLanguageModel model, EngineConfig config, Device device)
    {
        (_model, _config, _device) = (model, config.Checked(), device);
        var sizes = model.Config;
        _pool = new StatePool(
            sizes.Layers, config.Streams, sizes.Heads, sizes.HeadDim, sizes.HeadDim, ScalarType.Float32, device);
        _scheduler = new Scheduler(config, _pool);
        _prefillRows = FixedShapes.PadRows(config.MaxPrefillTokens);
        _decodeRows = FixedShapes.PadRows(config.Streams);
    }

    public bool IsIdle => _scheduler.IsIdle;

    public int Waiting => _scheduler.Waiting;

    public int Active => _scheduler.Streams.Count;

    public StatePoolMemory Memory => _pool.Memory;

    public void Submit(Request request) => _scheduler.Submit(request);

    public StepResult Step()
    {
        using var scope = NewDisposeScope();
        using var noGrad = no_grad();
        var decoding = _scheduler.Decoding();
        var chunks = _scheduler.TakeChunks();

        // Both passes are queued before the first result is waited for.
        var decoded = decoding.Count > 0 ? Decode(decoding) : null;
        var read = chunks.Count > 0 ? Prefill(chunks) : null;
        List<GenerationStream> started = [.. chunks.Where(chunk => chunk.IsLast).Select(chunk => chunk.Stream)];
        Append(decoding, decoded);
        Append(started, read);
        return new StepResult(
            chunks.Sum(chunk => chunk.Length), decoding.Count + started.Count, _scheduler.RemoveFinished());
    }

    /// <summary>Serves a request that nobody made, so that what the first passes load is not in their times.</summary>
    public void WarmUp()
    {
        Submit(new Request(-1, 0, [0], NewTokens: 2));
        while (!IsIdle)
        {
            Step();
        }
    }

    public void Dispose() => _pool.Dispose();

    /// <summary>The logits [n, 256] of the n streams' next tokens.</summary>
    private Tensor Decode(List<GenerationStream> streams)
    {
        var tokens = new long[_decodeRows];
        var slots = new StateSlot?[_decodeRows];
        for (var row = 0; row < streams.Count; row++)
        {
            tokens[row] = streams[row].Generated[^1];
            slots[row] = streams[row].Slot;
        }

        var indices = _pool.Indices(slots);
        var logits = _model.call(
            OnDevice(tensor(tokens, _decodeRows, 1)), Layers(states => new PooledSequences(states, indices)));
        return logits.narrow(0, 0, streams.Count).squeeze(1);
    }

    /// <summary>The logits [n, 256] of the first tokens of the n streams whose prompt ends in this step.</summary>
    private Tensor? Prefill(List<PromptChunk> chunks)
    {
        var tokens = new long[_prefillRows];
        var offsets = new long[chunks.Count + 1];
        var ends = new List<long>();
        for (var i = 0; i < chunks.Count; i++)
        {
            var start = (int)offsets[i];
            for (var t = 0; t < chunks[i].Length; t++)
            {
                tokens[start + t] = chunks[i].Tokens[t];
            }

            offsets[i + 1] = start + chunks[i].Length;
            if (chunks[i].IsLast)
            {
                ends.Add(offsets[i + 1] - 1);
            }
        }

        var cuSeqlens = OnDevice(tensor(offsets));
        var indices = _pool.Indices([.. chunks.Select(chunk => (StateSlot?)chunk.Stream.Slot)]);
        var continues = OnDevice(tensor(chunks.Select(chunk => !chunk.IsFirst).ToArray()));
        var logits = _model.call(
            OnDevice(tensor(tokens, 1, _prefillRows)),
            Layers(states => new PackedSequences(cuSeqlens, states, indices, continues)));
        return ends.Count > 0 ? logits.squeeze(0).index_select(0, OnDevice(tensor(ends.ToArray()))) : null;
    }

    private AttentionState[] Layers(Func<Tensor, AttentionState> of) =>
        [.. Enumerable.Range(0, _model.Config.Layers).Select(layer => of(_pool[layer]))];

    /// <summary>The likeliest byte of each row, to each stream.</summary>
    private void Append(List<GenerationStream> streams, Tensor? logits)
    {
        if (logits is null)
        {
            return;
        }

        var next = logits.argmax(1).cpu().data<long>();
        var recorded = _config.RecordLogits ? logits.cpu() : null;
        for (var row = 0; row < streams.Count; row++)
        {
            streams[row].Append((byte)next[row], recorded is null ? null : Fingerprint(recorded[row]));
        }
    }

    /// <summary>64 bits of the SHA-256 of the logits' bits.</summary>
    private static ulong Fingerprint(Tensor logits) =>
        MemoryMarshal.Read<ulong>(SHA256.HashData(MemoryMarshal.AsBytes<float>(logits.data<float>().ToArray())));

    /// <summary>Takes a tensor of the CPU to the device without waiting for it.</summary>
    private Tensor OnDevice(Tensor tensor) =>
        _device.type == DeviceType.CPU ? tensor : tensor.pin_memory().to(_device, non_blocking: true);
}
