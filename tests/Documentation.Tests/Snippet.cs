using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;

namespace LightningAttn.Documentation.Tests;

/// <summary>A block of C# in a document, as a reader would paste it into the Program.cs of a new project.</summary>
/// <param name="Document">Path in the repository.</param>
/// <param name="Line">Of its first line.</param>
/// <param name="Code">Its lines.</param>
internal sealed record Snippet(string Document, int Line, string Code)
{
    private const string Fence = "```";

    // What a new project has by ImplicitUsings.
    private const string ImplicitUsings =
        "global using System; global using System.Collections.Generic; global using System.IO; global using System.Linq; "
        + "global using System.Threading; global using System.Threading.Tasks;";

    private static readonly MetadataReference[] s_references =
    [
        .. ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!)
            .Split(Path.PathSeparator)
            .Select(static path => MetadataReference.CreateFromFile(path)),
    ];

    /// <summary>The blocks that begin with ```csharp.</summary>
    internal static IEnumerable<Snippet> In(string document, string text)
    {
        string[] lines = text.ReplaceLineEndings("\n").Split('\n');
        for (int i = 0; i < lines.Length; i++)
        {
            if (!lines[i].TrimStart().StartsWith(Fence, StringComparison.Ordinal))
            {
                continue;
            }

            string language = lines[i].Trim()[Fence.Length..];
            int begin = i + 1;
            for (i = begin; i < lines.Length && !lines[i].TrimStart().StartsWith(Fence, StringComparison.Ordinal); i++)
            {
            }

            if (i == lines.Length)
            {
                throw new FormatException($"{document}({begin}): the block does not end");
            }

            if (language is "csharp" or "cs" or "c#")
            {
                yield return new Snippet(document, begin + 1, string.Join('\n', lines[begin..i]));
            }
        }
    }

    /// <summary>The program, or the errors with the document's lines.</summary>
    internal (byte[]? Program, string Errors) Compile()
    {
        var compilation = CSharpCompilation.Create(
            "Snippet" + Guid.NewGuid().ToString("N"),
            [
                CSharpSyntaxTree.ParseText(ImplicitUsings),
                CSharpSyntaxTree.ParseText($"#line {Line} \"{Document}\"\n{Code}"),
            ],
            s_references,
            new CSharpCompilationOptions(OutputKind.ConsoleApplication, nullableContextOptions: NullableContextOptions.Enable));
        using var image = new MemoryStream();
        bool compiled = compilation.Emit(image).Success;
        IEnumerable<string> errors = compilation.GetDiagnostics()
            .Where(static diagnostic => diagnostic.Severity == DiagnosticSeverity.Error)
            .Select(static diagnostic =>
            {
                FileLinePositionSpan span = diagnostic.Location.GetMappedLineSpan();
                return $"{span.Path}({span.StartLinePosition.Line + 1}): {diagnostic.GetMessage()}";
            });
        return (compiled ? image.ToArray() : null, string.Join('\n', errors));
    }

    public override string ToString() => $"{Document}:{Line}";
}
