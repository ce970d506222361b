namespace CharLm;

/// <summary>A loss in nats per byte, after the given number of steps.</summary>
internal readonly record struct LossPoint(int Step, double Loss);

/// <summary>How far a training has come.</summary>
internal sealed class TrainingHistory
{
    /// <summary>Steps done; also the number of batches drawn from the corpus.</summary>
    public int Step { get; set; }

    public double ElapsedSeconds { get; set; }

    /// <summary>The loss of every batch, before the step that learned from it.</summary>
    public List<float> TrainingLosses { get; init; } = [];

    public List<LossPoint> ValidationLosses { get; init; } = [];

    /// <summary>
    /// A line per step, with the digits that tell any two floats apart: its number from 1, a tab, its training loss.
    /// </summary>
    public void WriteTrainingLosses(string file) =>
        File.WriteAllLines(file, TrainingLosses.Select((loss, index) => $"{index + 1}\t{loss:G9}"));
}
