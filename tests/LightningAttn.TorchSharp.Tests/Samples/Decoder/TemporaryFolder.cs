namespace LightningAttn.Tests.Samples.Decoder;

/// <summary>A folder that is gone in the end.</summary>
internal sealed class TemporaryFolder : IDisposable
{
    internal string Path { get; } = Directory.CreateTempSubdirectory("lattn-").FullName;

    internal string File(string name) => System.IO.Path.Combine(Path, name);

    internal string Write(string name, byte[] bytes)
    {
        System.IO.File.WriteAllBytes(File(name), bytes);
        return File(name);
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
