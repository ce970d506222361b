using System.CommandLine;
using CharLm;

namespace MiniMax;

/// <summary>The options of the program and their help.</summary>
internal static class CommandLine
{
    private static readonly Option<string> s_checkpoint = new("--checkpoint")
    {
        Description = "Folder with config.json and model.safetensors, or shards and their index, as transformers "
            + "writes them for MiniMaxForCausalLM.",
        HelpName = "folder",
        Required = true,
    };

    private static readonly Option<string?> s_promptIds = new("--prompt-ids")
    {
        Description = "Tokens of the prompt, separated by commas. Default: 0.",
        HelpName = "ids",
    };

    private static readonly Option<int?> s_generate = NumberOption.Create<int>(
        "--generate", minimum: 0, "count", "Tokens to generate, the likeliest one every time. Default: 32.");

    private static readonly Option<int?> s_chunk = NumberOption.Create<int>(
        "--chunk", minimum: 1, "tokens", "Reads the prompt in chunks of so many tokens. Default: at once.");

    private static readonly Option<string?> s_verify = new("--verify")
    {
        Description = "Compares with the results in a reference.safetensors instead (tests/data/minimax). "
            + "Exit code 3 if they differ.",
        HelpName = "file",
    };

    private static readonly Option<string> s_device = new ComputeOptions().Device;

    public static RootCommand Create(Func<Options, int> run)
    {
        var command = new RootCommand(
            "Runs a MiniMax-01 decoder, linear and softmax attention over sparse experts, from a checkpoint of "
            + "Hugging Face transformers. Text goes in and comes out as token ids.");
        foreach (var option in new Option[] { s_checkpoint, s_promptIds, s_generate, s_chunk, s_verify, s_device })
        {
            command.Options.Add(option);
        }

        command.SetAction(result => run(new Options
        {
            Checkpoint = result.GetRequiredValue(s_checkpoint),
            PromptIds = result.GetValue(s_promptIds),
            Generate = result.GetValue(s_generate),
            Chunk = result.GetValue(s_chunk),
            Verify = result.GetValue(s_verify),
            Device = result.GetRequiredValue(s_device),
        }));
        return command;
    }
}
