# Job control in a shell that is not at a terminal, traps, and what wait says.
set -m
sleep 60 & kill -STOP %1; sleep 0.2; jobs | awk '{print $2}'; kill -CONT %1; kill %1; wait %1; echo $?
(exit 3) & wait $!; echo $?
trap 'echo trapped' USR1; kill -USR1 $$; trap 'echo bye' EXIT
(trap 'echo inner; exit 4' TERM; sleep 60 & wait) & p=$!; sleep 0.3; kill -TERM -- -$p 2>/dev/null || kill -TERM $p; wait $p; echo $?
yes | head -2 | wc -l
timeout 0.2 sleep 5; echo $?
timeout -s KILL 0.2 sleep 5; echo $?
nice -n 3 sh -c 'nice'; sh -c 'ulimit -n 256; ulimit -n'
exec 3>&1; echo to three >&3; exec 3>&-
cat <<< "here"; cat < <(echo substituted)
coproc tr a b; echo aaa >&"${COPROC[1]}"; exec {COPROC[1]}>&-; cat <&"${COPROC[0]}"
