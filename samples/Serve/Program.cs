using CharLm;
using Serve;

// Ctrl+C ends the run after the step at hand.
return ConsoleProgram.Run<Options>("serve", args, CommandLine.Create, Session.Run);
