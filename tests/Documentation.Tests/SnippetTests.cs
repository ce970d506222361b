using System.Reflection;
using NUnit.Framework;

namespace LightningAttn.Documentation.Tests;

/// <summary>The C# of the documents compiles, and what the readme files show runs.</summary>
internal sealed class SnippetTests
{
    private static readonly string s_documents = Path.Combine(AppContext.BaseDirectory, "Documents");

    private static IEnumerable<TestCaseData> Snippets() => Cases(static _ => true);

    private static IEnumerable<TestCaseData> ReadmeSnippets() => Cases(
        static document => document is "README.md" or "packaging/README.md");

    [TestCaseSource(nameof(Snippets))]
    public void Compiles(object snippet)
    {
        (byte[]? program, string errors) = ((Snippet)snippet).Compile();
        Assert.That(errors, Is.Empty);
        Assert.That(program, Is.Not.Null);
    }

    [TestCaseSource(nameof(ReadmeSnippets))]
    public void Runs(object snippet)
    {
        MethodInfo main = Assembly.Load(((Snippet)snippet).Compile().Program!).EntryPoint!;
        Assert.That(() => main.Invoke(null, main.GetParameters().Length == 0 ? null : [Array.Empty<string>()]), Throws.Nothing);
    }

    [Test]
    public void TheReadmeFilesHaveSnippets() =>
        Assert.That(ReadmeSnippets().Select(static data => data.TestName), Has.Some.Contains(" README.md").And.Some.Contains("packaging"));

    [Test]
    public void WhatDoesNotCompileIsFoundWithItsLine()
    {
        Snippet snippet = Snippet.In("a.md", "text\n```csharp\nint i = 1;\nint j = k;\n```\n```text\nno code\n```\n").Single();
        (byte[]? program, string errors) = snippet.Compile();
        Assert.That(program, Is.Null);
        Assert.That(errors, Does.StartWith("a.md(4): ").And.Contain("'k'"));
    }

    [Test]
    public void ABlockWithoutAnEndIsFound() =>
        Assert.That(() => Snippet.In("a.md", "```csharp\nint i;").ToArray(), Throws.InstanceOf<FormatException>());

    private static IEnumerable<TestCaseData> Cases(Func<string, bool> choose) =>
        Directory.EnumerateFiles(s_documents, "*.md", SearchOption.AllDirectories)
            .Order(StringComparer.Ordinal)
            .Select(static path => (Path: path, Document: Path.GetRelativePath(s_documents, path).Replace('\\', '/')))
            .Where(file => choose(file.Document))
            .SelectMany(static file => Snippet.In(file.Document, File.ReadAllText(file.Path)))
            .Select(static snippet => new TestCaseData(snippet).SetName($"{{m}} {snippet}"));
}
