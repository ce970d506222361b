using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using CharLm.Model;
using TorchSharp.Modules;

namespace CharLm;

/// <summary>
/// One file: a magic line, a JSON header, the model and the optimizer as TorchSharp writes them, and the SHA-256 of all
/// that.
/// </summary>
/// <remarks>
/// The checksum is verified before TorchSharp sees a byte, because a damaged tensor header would make it allocate at
/// random. There is no generator's state to keep: batches follow from the seed and the step.
/// </remarks>
internal sealed class Checkpoint
{
    private const string Magic = "CharLm checkpoint 1\n";

    private readonly string _path;
    private readonly long _tensorOffset;

    private Checkpoint(string path, CheckpointHeader header, long tensorOffset)
    {
        _path = path;
        _tensorOffset = tensorOffset;
        Header = header;
    }

    public CheckpointHeader Header { get; }

    /// <summary>
    /// Replaces <paramref name="path"/> in one move, so that an interrupted save leaves the old file whole.
    /// </summary>
    public static void Save(string path, CheckpointHeader header, ByteLanguageModel model, OptimizerHelper optimizer)
    {
        var temporary = path + ".tmp";
        using (var file = new FileStream(temporary, FileMode.Create, FileAccess.ReadWrite))
        {
            using var writer = new BinaryWriter(file, Encoding.UTF8, leaveOpen: true);
            writer.Write(Encoding.ASCII.GetBytes(Magic));
            var json = JsonSerializer.SerializeToUtf8Bytes(header);
            writer.Write(json.Length);
            writer.Write(json);
            model.save(writer);
            optimizer.save_state_dict(writer);
            writer.Flush();
            file.Position = 0;
            var hash = SHA256.HashData(file);
            file.Write(hash);
        }

        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>Checks a file and reads its header.</summary>
    /// <exception cref="UserErrorException">There is no such file, or it is not a whole checkpoint.</exception>
    public static Checkpoint Open(string path)
    {
        if (!File.Exists(path))
        {
            throw new UserErrorException($"no checkpoint: {path} does not exist");
        }

        try
        {
            using var file = File.OpenRead(path);
            using var reader = new BinaryReader(file);
            if (!reader.ReadBytes(Magic.Length).AsSpan().SequenceEqual(Encoding.ASCII.GetBytes(Magic)))
            {
                throw new UserErrorException($"{path} is not a checkpoint of this program");
            }

            VerifyChecksum(path, file);
            file.Position = Magic.Length;
            var json = reader.ReadBytes(reader.ReadInt32());
            var header = JsonSerializer.Deserialize<CheckpointHeader>(json)
                ?? throw new UserErrorException($"{path} is damaged: its header is empty");
            return new Checkpoint(path, header, file.Position);
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"{path} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Fills a model built from this checkpoint's config, and its optimizer if there is one.</summary>
    public void Restore(ByteLanguageModel model, OptimizerHelper? optimizer = null)
    {
        using var file = File.OpenRead(_path);
        using var reader = new BinaryReader(file);
        file.Position = _tensorOffset;
        try
        {
            model.load(reader);
            optimizer?.load_state_dict(reader);
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or IOException or FormatException)
        {
            throw new UserErrorException($"{_path} does not fit this program's model: {e.Message}", e);
        }
    }

    private static void VerifyChecksum(string path, FileStream file)
    {
        var length = file.Length - SHA256.HashSizeInBytes;
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        file.Position = 0;
        var buffer = new byte[1 << 20];
        for (var left = length; left > 0;)
        {
            var read = file.Read(buffer, 0, (int)Math.Min(buffer.Length, left));
            hash.AppendData(buffer, 0, read);
            left -= read;
        }

        var stored = new byte[SHA256.HashSizeInBytes];
        if (length < 0 || file.ReadAtLeast(stored, stored.Length, throwOnEndOfStream: false) < stored.Length
            || !hash.GetHashAndReset().AsSpan().SequenceEqual(stored))
        {
            throw new UserErrorException($"{path} is damaged: its checksum does not match");
        }
    }
}

/// <summary>What is known about a checkpoint without reading its tensors.</summary>
internal sealed record CheckpointHeader
{
    public required ModelConfig Model { get; init; }

    public required TrainingConfig Training { get; init; }

    public required TrainingHistory History { get; init; }

    /// <summary><see cref="Corpus.Fingerprint"/> of the data trained on.</summary>
    public required string Corpus { get; init; }
}
