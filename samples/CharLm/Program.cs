using CharLm;

// Ctrl+C ends the training with a checkpoint.
return ConsoleProgram.Run<Options>("charlm", args, CommandLine.Create, (options, cancellation) =>
{
    Session.Run(options, cancellation);
    return 0;
});
