using System.Security.Cryptography;
using System.Text.Unicode;

namespace CharLm;

/// <summary>
/// The bytes of a file or of every text file of a folder, split into a training and a validation part.
/// </summary>
/// <remarks>
/// The last tenth of each file is held out, so that both parts hold the same kinds of text and share no byte. Files are
/// joined by <see cref="Separator"/>, in the ordinal order of their relative paths.
/// </remarks>
internal sealed class Corpus
{
    /// <summary>Stands before each file. Text has no zero byte.</summary>
    public const byte Separator = 0;

    private const string SolutionFile = "LightningAttn.TorchSharp.sln";
    private const long MaxFileBytes = 8L << 20;

    private static readonly HashSet<string> s_skippedFolders =
        new(StringComparer.OrdinalIgnoreCase) { "bin", "obj", "build", "artifacts", "node_modules", "TestResults" };

    private Corpus(string source, int fileCount, byte[] training, byte[] validation)
    {
        Source = source;
        FileCount = fileCount;
        Training = training;
        Validation = validation;
        Fingerprint = Convert.ToHexStringLower(SHA256.HashData(training).AsSpan(0, 8));
        UnigramLoss = CrossEntropyOfUnigram(training, validation);
    }

    public string Source { get; }

    public int FileCount { get; }

    public byte[] Training { get; }

    public byte[] Validation { get; }

    /// <summary>Identifies the training bytes in a checkpoint.</summary>
    public string Fingerprint { get; }

    /// <summary>
    /// Cross-entropy, in nats per byte, of the validation part under the training part's byte frequencies (each count
    /// plus one): what a model reaches that knows nothing of context.
    /// </summary>
    public double UnigramLoss { get; }

    /// <param name="path">A file or a folder; null for the repository that holds the working directory.</param>
    /// <param name="sequenceLength">The training part must be longer than this many bytes.</param>
    /// <exception cref="UserErrorException">There is no such path, or too little text in it.</exception>
    public static Corpus Load(string? path, int sequenceLength)
    {
        var root = path ?? FindRepository();
        var files = File.Exists(root) ? [root]
            : Directory.Exists(root) ? TextFilesOf(new DirectoryInfo(root)).ToList()
            : throw new UserErrorException($"no such file or folder: {root}");

        using var training = new MemoryStream();
        using var validation = new MemoryStream();
        var used = 0;
        foreach (var file in files)
        {
            var text = Read(file);
            if (text.Length == 0 || (file != root && (text.AsSpan().Contains(Separator) || !Utf8.IsValid(text))))
            {
                continue;
            }

            used++;
            var split = text.Length - (text.Length / 10);
            training.WriteByte(Separator);
            training.Write(text, 0, split);
            validation.WriteByte(Separator);
            validation.Write(text, split, text.Length - split);
        }

        if (used == 0)
        {
            throw new UserErrorException($"no text in {root}");
        }

        if (training.Length <= sequenceLength || validation.Length < 2)
        {
            throw new UserErrorException(
                $"too little text in {root} ({training.Length} bytes): --seq-len {sequenceLength} needs more");
        }

        return new Corpus(root, used, training.ToArray(), validation.ToArray());
    }

    /// <summary>
    /// The top folder of this repository, looked for above the working directory, then above the program.
    /// </summary>
    public static string? TryFindRepository()
    {
        foreach (var start in new[] { Directory.GetCurrentDirectory(), AppContext.BaseDirectory })
        {
            for (var folder = new DirectoryInfo(start); folder is not null; folder = folder.Parent)
            {
                if (File.Exists(Path.Combine(folder.FullName, SolutionFile)))
                {
                    return folder.FullName;
                }
            }
        }

        return null;
    }

    private static string FindRepository() =>
        TryFindRepository()
        ?? throw new UserErrorException(
            $"nothing to train on: no {SolutionFile} above {Directory.GetCurrentDirectory()}; "
            + "give a file or folder with --data");

    private static byte[] Read(string file)
    {
        try
        {
            return File.ReadAllBytes(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"cannot read {file}: {e.Message}", e);
        }
    }

    private static IEnumerable<string> TextFilesOf(DirectoryInfo root)
    {
        var options = new EnumerationOptions { AttributesToSkip = FileAttributes.ReparsePoint };
        var pending = new Stack<DirectoryInfo>([root]);
        var files = new List<string>();
        while (pending.TryPop(out var folder))
        {
            foreach (var entry in folder.EnumerateFileSystemInfos("*", options))
            {
                if (entry is FileInfo file)
                {
                    if (file.Length <= MaxFileBytes)
                    {
                        files.Add(file.FullName);
                    }
                }
                else if (!entry.Name.StartsWith('.') && !s_skippedFolders.Contains(entry.Name))
                {
                    pending.Push((DirectoryInfo)entry);
                }
            }
        }

        files.Sort(StringComparer.Ordinal);
        return files;
    }

    private static double CrossEntropyOfUnigram(byte[] training, byte[] validation)
    {
        var counts = new long[256];
        Array.Fill(counts, 1);
        foreach (var b in training)
        {
            counts[b]++;
        }

        var total = (double)(training.Length + 256);
        return -validation.Average(b => Math.Log(counts[b] / total));
    }
}
