namespace LightningAttn;

/// <summary>
/// A fault inside the native library that is neither a bad argument (<see cref="ArgumentException"/>), nor something
/// the build or the device lacks (<see cref="NotSupportedException"/>), nor a lack of memory
/// (<see cref="OutOfMemoryException"/>): an error of the CUDA driver, or a library that does not match this assembly.
/// </summary>
public class LightningAttnException : Exception
{
    /// <summary>Creates an exception without a message of its own.</summary>
    public LightningAttnException()
    {
    }

    /// <summary>Creates an exception with the native library's message.</summary>
    public LightningAttnException(string message)
        : base(message)
    {
    }

    /// <summary>Creates an exception with a message and its cause.</summary>
    public LightningAttnException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
