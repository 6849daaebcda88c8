# With the argument `run`, commands are run in views of their own, with `join` they join one.
prefix = "umvu "
if sys.argv[1] == "join":
    name = f"terminal-{os.getpid()}"
    terminal.type(f"umvu --name {name} sleep 1000 & until umvu ps {name} >/dev/null 2>&1; do sleep 0.05; done\n")
    terminal.wait_for("@@ ")
    prefix = f"umvu exec {name} "


def waits_for(name):
    """What a program begins with that is ready for a signal, at whatever moment it comes."""
    wait = f"signals = [signal.{name}]; signal.pthread_sigmask(signal.SIG_BLOCK, signals); print('re' + 'ady', flush=True)"
    return f"import signal; {wait}; signal.sigwait(signals); "


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
handler = waits_for("SIGINT") + "import time, sys; time.sleep(0.3); sys.exit(4)"
terminal.type(prefix + f'python3 -c "{handler}"\n')
terminal.wait_for("ready\r\n")
terminal.type("\x03")
terminal.status_is(4)

# Ctrl-Z, fg, bg. (Not by a shell: one that waits in vfork(2) for a child that is stopped does not stop itself.)
sleeper = waits_for("SIGCONT") + "raise SystemExit(9)"
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
onward = waits_for("SIGCONT") + "signal.signal(signal.SIGINT, signal.SIG_DFL); print('on' + 'ward', flush=True); signal.pause()"
terminal.type(f'python3 -c "{onward}"\n')
terminal.wait_for("ready\r\n")
terminal.type("\x1a")
terminal.wait_for("Stopped", "## ")
terminal.type("fg\n")
terminal.wait_for("onward")
terminal.type("\x03")
terminal.wait_for("## ")
terminal.type("echo inner=$?; exit 3\n")
terminal.wait_for("inner=130")
terminal.status_is(3)

if sys.argv[1] == "join":
    terminal.type("kill %1; wait %1\n")
    terminal.status_is(143)
print("all seen")
