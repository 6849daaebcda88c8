// Without libraries: files, a child, a signal.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int got;
static void handler(int number) { got = number; }

int main(int argc, char **argv) {
    char path[4096], text[16] = {0};
    snprintf(path, sizeof path, "%s/static", argv[1]);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    if (fd < 0 || write(fd, "hello", 5) != 5 || pread(fd, text, sizeof text, 0) != 5) return 1;
    printf("%s %ld\n", text, (long)lseek(fd, 0, SEEK_END));
    for (int n = 0; n < 30; n++)
        if (access("/etc/passwd", R_OK) || !access("/etc/none", R_OK) || access(path, W_OK)) return 2;
    signal(SIGUSR1, handler);
    pid_t child = fork();
    if (child == 0) {
        write(fd, " child", 6);
        kill(getppid(), SIGUSR1);
        execl("/bin/sh", "sh", "-c", "exit 6", NULL);
        _exit(9);
    }
    int status;
    while (waitpid(child, &status, 0) < 0) {}
    printf("%d %d %ld\n", WEXITSTATUS(status), got == SIGUSR1, (long)lseek(fd, 0, SEEK_CUR));
    return unlink(path) != 0;
}
