namespace LightningAttn;

/// <summary>An operation of the native library, as <see cref="Native.Describe"/> asks about it.</summary>
public enum Operation
{
    /// <summary>The forward pass of <see cref="Functional.lightning_attention"/>.</summary>
    Forward,

    /// <summary>The backward pass of every operator; decoding uses it with one token.</summary>
    Backward,

    /// <summary>
    /// <c>linear_decode_forward</c> and <see cref="Functional.linear_decode_step"/>.
    /// </summary>
    Decode,
}
