# With the argument `run`, commands are run in views of their own, with `join` they join one.
prefix = "umvu "
if sys.argv[1] == "join":
    terminal.type("umvu --name terminal sleep 1000 & until umvu ps terminal >/dev/null 2>&1; do sleep 0.05; done\n")
    terminal.wait_for("@@ ")
    prefix = "umvu exec terminal "

# The size of the window, and changes of it.
terminal.type(prefix + "stty size\n")
terminal.wait_for("33 101", "@@ ")
terminal.type(prefix + "sh -c 'trap \"stty size\" WINCH; echo re''ady; while :; do sleep 0.1; done'\n")
terminal.wait_for("ready\r\n")
terminal.resize(20, 50)
terminal.wait_for("20 50")

# Ctrl-C; one that the command handles in its own time.
terminal.type("\x03")
terminal.status_is(130)
handler = "import sys, time\ntry:\n  print('re' + 'ady', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n  time.sleep(0.3); sys.exit(4)"
terminal.type(prefix + f'python3 -c "{handler}"\n')
terminal.wait_for("ready\r\n")
terminal.type("\x03")
terminal.status_is(4)

# Ctrl-Z, fg, bg. (Not by a shell: one that waits in vfork(2) for a child that is stopped does not stop itself.)
sleeper = "import sys, time; print('re' + 'ady', flush=True); time.sleep(1); sys.exit(9)"
stoppable = prefix + f'python3 -c "{sleeper}"\n'
for command, end in (("fg\n", 9), ("bg; wait %%\n", 9)):
    terminal.type(stoppable)
    terminal.wait_for("ready\r\n")
    terminal.type("\x1a")
    terminal.wait_for("Stopped", "@@ ")
    terminal.type(command)
    terminal.status_is(end)

# Input and its end; statuses.
terminal.type(prefix + "sh -c 'echo re''ady; cat'\n")
terminal.wait_for("ready\r\n")
terminal.type("a line\n")
terminal.wait_for("a line\r\n", "a line\r\n")
terminal.type("\x04")
terminal.status_is(0)
terminal.type(prefix + "sh -c 'kill -9 $$'\n")
terminal.status_is(137)

# A shell in the view, with jobs of its own.
terminal.type(prefix + "bash --norc --noprofile -i\n")
terminal.type("PS1='#'# '\n".replace("'#'# '", "'#'\"# \""))
terminal.wait_for("## ")
terminal.type("sh -c 'echo re''ady; exec sleep 60'\n")
terminal.wait_for("ready\r\n")
terminal.type("\x1a")
terminal.wait_for("Stopped", "## ")
terminal.type("fg\n")
terminal.wait_for("sleep 60")
time.sleep(0.3)
terminal.type("\x03")
terminal.wait_for("## ")
terminal.type("echo inner=$?; exit 3\n")
terminal.wait_for("inner=130")
terminal.status_is(3)

if sys.argv[1] == "join":
    terminal.type("kill %1; wait %1\n")
    terminal.status_is(143)
print("all seen")
