namespace CharLm;

/// <summary>
/// A mistake in what the user gave (a path, an option, a checkpoint); its message is the whole report.
/// </summary>
internal sealed class UserErrorException : Exception
{
    public UserErrorException(string message)
        : base(message)
    {
    }

    public UserErrorException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
