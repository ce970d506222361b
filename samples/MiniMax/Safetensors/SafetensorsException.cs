namespace MiniMax.Safetensors;

/// <summary>A safetensors file that cannot be read or breaks a rule of the format; the message names both.</summary>
internal sealed class SafetensorsException : IOException
{
    public SafetensorsException(string file, string message)
        : base($"{file}: {message}")
    {
    }

    public SafetensorsException(string file, string message, Exception innerException)
        : base($"{file}: {message}", innerException)
    {
    }
}
