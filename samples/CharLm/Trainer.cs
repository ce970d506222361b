using System.Diagnostics;
using CharLm.Model;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace CharLm;

/// <summary>What a training shows of itself after each step.</summary>
/// <param name="Step">Steps done.</param>
/// <param name="Progress">Share of the run that is done, 0 to 1.</param>
/// <param name="Loss">Running mean of the training loss, nats per byte.</param>
/// <param name="ValidationLoss">The last one measured, nats per byte; null before the first.</param>
/// <param name="TokensPerSecond">Training speed; a token is a byte.</param>
/// <param name="TimeLeft">At the pace since this process began to train, validation and saving included.</param>
internal readonly record struct TrainingStatus(
    int Step,
    double Progress,
    double Loss,
    double? ValidationLoss,
    double TokensPerSecond,
    TimeSpan TimeLeft);

/// <summary>AdamW with warm-up, cosine decay and clipped gradients.</summary>
internal sealed class Trainer : IDisposable
{
    private const double MaxGradientNorm = 1;
    private const double WeightDecay = 0.1;
    private const int Validations = 10;
    private const int ValidationBytes = 16 << 10;
    private static readonly TimeSpan s_timeBetweenSaves = TimeSpan.FromSeconds(30);

    private readonly ByteLanguageModel _model;
    private readonly AdamW _optimizer;
    private readonly BatchSource _batches;
    private readonly TrainingConfig _config;
    private readonly string _checkpointFile;
    private readonly string _corpus;
    private readonly TimeSpan _elapsedBefore;
    private readonly Stopwatch _clock = new();
    private double _meanLoss = double.NaN;

    public Trainer(
        ByteLanguageModel model, Corpus corpus, TrainingConfig config, string checkpointFile, Checkpoint? resume)
    {
        _model = model;
        _config = config;
        _checkpointFile = checkpointFile;
        _corpus = corpus.Fingerprint;
        _batches = new BatchSource(
            corpus, config.Batch, config.SequenceLength, config.Seed, model.parameters().First().device);
        Speed = new TrainingSpeed(_batches.BytesPerBatch);
        _optimizer = CreateOptimizer(model, config.LearningRate);
        if (resume is not null)
        {
            resume.Restore(model, _optimizer);
            History = resume.Header.History;
        }

        _elapsedBefore = TimeSpan.FromSeconds(History.ElapsedSeconds);
    }

    public TrainingHistory History { get; } = new();

    public TrainingSpeed Speed { get; }

    private TimeSpan Elapsed => _elapsedBefore + _clock.Elapsed;

    /// <summary>Trains to the end of the run or until cancelled, and saves.</summary>
    public void Run(Action<TrainingStatus> report, CancellationToken cancellation)
    {
        if (_config.Progress(History.Step, Elapsed) >= 1)
        {
            return;
        }

        var lastSave = Stopwatch.StartNew();
        var startProgress = _config.Progress(History.Step, Elapsed);
        _clock.Start();
        _model.train();
        for (var progress = startProgress; progress < 1 && !cancellation.IsCancellationRequested;)
        {
            var before = progress;
            Speed.Time(() => Step(_config.LearningRateAt(History.Step, before)));
            progress = _config.Progress(History.Step, Elapsed);
            if (Math.Floor(before * Validations) < Math.Floor(progress * Validations))
            {
                History.ValidationLosses.Add(new LossPoint(History.Step, Validate()));
            }

            if (lastSave.Elapsed > s_timeBetweenSaves)
            {
                Save();
                lastSave.Restart();
            }

            report(StatusAt(progress, startProgress));
        }

        _clock.Stop();
        Save();
    }

    /// <summary>Mean loss over sequences spread evenly over the validation part, always the same ones; nats per byte.
    /// </summary>
    public double Validate()
    {
        using var noGrad = no_grad();
        _model.eval();
        var (sum, count) = (0.0, 0L);
        foreach (var (inputs, targets) in _batches.Validation(Math.Max(1, ValidationBytes / _config.SequenceLength)))
        {
            using var scope = NewDisposeScope();
            scope.Attach(inputs, targets);
            sum += Loss(inputs, targets).item<float>() * targets.numel();
            count += targets.numel();
        }

        _model.train();
        return sum / count;
    }

    public void Dispose() => _optimizer.Dispose();

    // Weight decay is for matrices: on a norm's weights it would only pull a scale towards zero.
    private static AdamW CreateOptimizer(ByteLanguageModel model, double learningRate)
    {
        var byRank = model.parameters().ToLookup(p => p.dim() >= 2);
        return optim.AdamW(
            [
                new AdamW.ParamGroup(byRank[true], new AdamW.Options { weight_decay = WeightDecay }),
                new AdamW.ParamGroup(byRank[false], new AdamW.Options { weight_decay = 0 }),
            ],
            learningRate,
            beta1: 0.9,
            beta2: 0.95);
    }

    private void Step(double learningRate)
    {
        // Everything made in a step, the saved tensors of its autograd graph included, is freed at its end.
        using var scope = NewDisposeScope();
        foreach (var group in _optimizer.ParamGroups)
        {
            group.LearningRate = learningRate;
        }

        var (inputs, targets) = _batches.Training(History.Step);
        _optimizer.zero_grad();
        var loss = Loss(inputs, targets);
        loss.backward();
        nn.utils.clip_grad_norm_(_model.parameters(), MaxGradientNorm);
        _optimizer.step();

        // Also waits for the device to finish the step, on which the measured speed relies.
        var value = loss.item<float>();
        if (!float.IsFinite(value))
        {
            throw new UserErrorException($"training diverged at step {History.Step + 1}; try a lower --lr");
        }

        History.TrainingLosses.Add(value);
        History.Step++;
        _meanLoss = double.IsNaN(_meanLoss) ? value : (0.95 * _meanLoss) + (0.05 * value);
    }

    private Tensor Loss(Tensor inputs, Tensor targets)
    {
        using var scope = NewDisposeScope();
        var logits = _model.call(inputs, null);
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).MoveToOuterDisposeScope();
    }

    private TrainingStatus StatusAt(double progress, double startProgress)
    {
        var seconds = _clock.Elapsed.TotalSeconds;
        return new TrainingStatus(
            History.Step,
            progress,
            _meanLoss,
            History.ValidationLosses is [.., var last] ? last.Loss : null,
            Speed.TokensPerSecond,
            TimeSpan.FromSeconds(seconds * (1 - progress) / (progress - startProgress)));
    }

    private void Save()
    {
        History.ElapsedSeconds = Elapsed.TotalSeconds;
        var header = new CheckpointHeader
        {
            Model = _model.Config,
            Training = _config,
            History = History,
            Corpus = _corpus,
        };
        Checkpoint.Save(_checkpointFile, header, _model, _optimizer);
    }
}
