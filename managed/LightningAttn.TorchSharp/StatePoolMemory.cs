using System.Globalization;

namespace LightningAttn;

/// <summary>The memory of a <see cref="StatePool"/>, as of one moment.</summary>
/// <param name="Layers">Layers of the pool.</param>
/// <param name="Capacity">Slots of the pool.</param>
/// <param name="InUse">Slots that are handed out.</param>
/// <param name="BytesPerLayer">Bytes of one layer's tensor.</param>
public readonly record struct StatePoolMemory(int Layers, int Capacity, int InUse, long BytesPerLayer)
{
    private const double MiB = 1 << 20;

    /// <summary>Bytes of all layers, held from the pool's construction until it is disposed.</summary>
    public long TotalBytes => BytesPerLayer * Layers;

    /// <summary>Bytes of one slot in all layers: what one more request costs.</summary>
    public long BytesPerSlot => TotalBytes / Math.Max(Capacity, 1);

    /// <summary>Bytes of the slots that are handed out.</summary>
    public long BytesInUse => BytesPerSlot * InUse;

    /// <summary>As in: 3 of 16 slots in use, 12.0 of 64.0 MiB, 16.0 MiB per layer.</summary>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{InUse} of {Capacity} slots in use, {BytesInUse / MiB:F1} of {TotalBytes / MiB:F1} MiB, "
        + $"{BytesPerLayer / MiB:F1} MiB per layer");
}
