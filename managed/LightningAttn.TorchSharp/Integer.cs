namespace LightningAttn;

/// <summary>Arithmetic of sizes.</summary>
internal static class Integer
{
    /// <summary>How many pieces of a size cover so many: value / size, rounded up.</summary>
    internal static long CeilDiv(long value, long size) => (value + size - 1) / size;
}
