using System.Management.Automation.Language;
using System.Text.RegularExpressions;

namespace LightningAttn.BuildScripts.Tests;

/// <summary>
/// build.ps1 is for Windows PowerShell 5.1 too, and has the commands of build.sh. 5.1 is a part of Windows: what it
/// would not read is looked for in what the parser of 7 sees.
/// </summary>
[TestFixture]
internal sealed partial class SyntaxTests
{
    private static readonly HashSet<TokenKind> s_newTokens =
    [
        TokenKind.AndAnd, TokenKind.OrOr, TokenKind.QuestionMark, TokenKind.QuestionQuestion,
        TokenKind.QuestionQuestionEquals, TokenKind.QuestionDot, TokenKind.QuestionLBracket, TokenKind.Clean,
    ];

    // Automatic variables that 5.1 does not have.
    private static readonly HashSet<string> s_newVariables =
        new(["IsWindows", "IsLinux", "IsMacOS", "IsCoreCLR"], StringComparer.OrdinalIgnoreCase);

    private static readonly string s_script = File.ReadAllText(ScriptRun.Source("build.ps1"));

    [Test]
    public void TheScriptIsReadWithoutErrors()
    {
        Parser.ParseInput(s_script, out _, out ParseError[] errors);

        Assert.That(errors.Select(static error => error.Message), Is.Empty);
    }

    [Test]
    public void NothingOfItIsNewerThanPowerShell5() => Assert.That(NewerThan5(s_script), Is.Empty);

    [TestCase("cmake && ctest")]
    [TestCase("cmake || ctest")]
    [TestCase("$a ? 1 : 2")]
    [TestCase("$a ?? 1")]
    [TestCase("$a ??= 1")]
    [TestCase("${a}?.Length")]
    [TestCase("${a}?[0]")]
    [TestCase("cmake &")]
    [TestCase("function f { end { } clean { } }")]
    [TestCase("if ($IsWindows) { }")]
    public void WhatIsNewerIsFound(string script) => Assert.That(NewerThan5(script), Has.Count.EqualTo(1));

    [Test]
    public void TheCommandsItCallsAreThereOnEveryMachineOrLookedFor()
    {
        ScriptBlockAst script = Parser.ParseInput(s_script, out _, out _);
        var own = script.FindAll(static ast => ast is FunctionDefinitionAst, searchNestedScriptBlocks: true)
            .Select(static ast => ((FunctionDefinitionAst)ast).Name);
        var called = script.FindAll(static ast => ast is CommandAst, searchNestedScriptBlocks: true)
            .Select(static ast => ((CommandAst)ast).GetCommandName())
            .Where(static name => name is not null) // a variable names it
            .Distinct();

        Assert.That(
            called.Except(own),
            Is.SubsetOf(new[] { "Get-Command", "Push-Location", "Pop-Location", "cmake", "ctest", "dotnet" }));
    }

    /// <summary>5.1 reads a file without a byte order mark in the code page of the machine.</summary>
    [Test]
    public void TheFileIsAsciiWithTheLineEndsOfWindows()
    {
        Assert.That(s_script, Has.None.GreaterThan('\x7e'));
        Assert.That(Regex.Count(s_script, "(?<!\r)\n"), Is.Zero);
    }

    [Test]
    public void TheCommandsAreThoseOfBuildSh()
    {
        string shell = File.ReadAllText(ScriptRun.Source("build.sh"));
        string[] commands = Usage(shell);

        Assert.That(commands, Has.Length.GreaterThan(4).And.Contains("test"));
        Assert.That(Usage(s_script), Is.EquivalentTo(commands));
        Assert.That(
            ShellCase().Matches(shell).Select(static match => match.Groups[1].Value), Is.EquivalentTo(commands));
        Assert.That(
            SwitchCase().Matches(s_script).Select(static match => match.Groups[1].Value), Is.EquivalentTo(commands));

        static string[] Usage(string script) =>
            [.. UsageLine().Matches(script).Select(static match => match.Groups[1].Value)];
    }

    private static List<string> NewerThan5(string script)
    {
        ScriptBlockAst parsed = Parser.ParseInput(script, out Token[] tokens, out _);
        IEnumerable<string> found = tokens
            .Where(static token => s_newTokens.Contains(token.Kind)
                || (token is VariableToken variable && s_newVariables.Contains(variable.Name)))
            .Select(static token => token.Text);
        IEnumerable<string> background = parsed
            .FindAll(static ast => ast is PipelineAst { Background: true }, searchNestedScriptBlocks: true)
            .Select(static ast => ast.Extent.Text);
        return [.. found, .. background];
    }

    [GeneratedRegex(@"^  ([a-z][a-z-]*)  +[a-z]", RegexOptions.Multiline)]
    private static partial Regex UsageLine();

    [GeneratedRegex(@"^    ([a-z-]+)\) ", RegexOptions.Multiline)]
    private static partial Regex ShellCase();

    [GeneratedRegex(@"^        '([a-z-]+)' \{", RegexOptions.Multiline)]
    private static partial Regex SwitchCase();
}
