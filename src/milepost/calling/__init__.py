"""`milepost call` and `milepost resume`: a person, or a script, at a terminal drives a tool through `milepost.client`.

forms, values    what a schema asks for; whether what was typed, or written in a file, answers it     pure
printable        what of a server's text may reach a terminal                                        pure
stages           the stages of a call, and how long each took                                         pure
answers          answers from a file, for scripts                                                     pure
arguments        a tool's arguments from flags                                                        pure
screen, terminal what is shown on stderr; what is read from the keyboard
person, desk     one question to a person; where a server's questions arrive
driving          one call from its start to its end, and what Ctrl-C does to it
outcomes         what a call comes to: stdout, a sentence, an exit code
commands         the two commands
"""
