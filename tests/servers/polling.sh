# poll, select and epoll on a file that the server makes ready.
serve --open-flags 4
python3 - <<'P'
import os, select, threading, time
def say(command):
    with open("mnt/.control", "w") as control: control.write(command)
fd = os.open("mnt/pollable", os.O_RDWR | os.O_NONBLOCK)
poll = select.poll(); poll.register(fd, select.POLLIN)
print(poll.poll(0))
print(poll.poll(200))
def later():
    time.sleep(0.3); say("set pollable data"); say("wake")
thread = threading.Thread(target=later); thread.start()
print([events for _, events in poll.poll(20000)]); thread.join()
print(select.select([fd], [], [], 0)[0] == [fd])
say("set pollable"); say("wake")
print(poll.poll(0))
epoll = select.epoll(); epoll.register(fd, select.EPOLLIN)
thread = threading.Thread(target=later); thread.start()
print([events for _, events in epoll.poll(20)]); thread.join()
other = os.open("mnt/double", os.O_RDWR)
print(select.select([other], [], [], 5)[0] == [other])
P
unserve
