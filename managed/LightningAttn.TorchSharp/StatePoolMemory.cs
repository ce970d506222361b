using System.Globalization;

namespace LightningAttn;

/// <summary>The memory of a <see cref="StatePool"/>, in bytes.</summary>
/// <param name="PerLayer">Of one layer's tensor.</param>
/// <param name="Total">Of all layers.</param>
/// <param name="InUse">Of the slots that are handed out, in all layers.</param>
public readonly record struct StatePoolMemory(long PerLayer, long Total, long InUse)
{
    private const double MiB = 1 << 20;

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"{InUse / MiB:F1} of {Total / MiB:F1} MiB in use, {PerLayer / MiB:F1} MiB per layer");
}
