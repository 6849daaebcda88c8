/* A signal for a process is for its first thread, as long as that one does not block it: there it interrupts a call that
 * waits, whichever thread sends it and when. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static volatile int elsewhere, strangers, ready, back;

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    if (gettid() != getpid())
        elsewhere++;
    if (info->si_code != SI_USER || info->si_pid != getpid())
        strangers++;
}

static void *sender(void *pause)
{
    /* Before that, the library may have all signals blocked. */
    while (!ready)
        usleep(100);
    usleep(*(int *)pause);
    while (!back) {
        kill(getpid(), SIGUSR1);
        for (int i = 0; i < 1000 && !back; i++)
            usleep(1000);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2 || chdir(argv[1]))
        return 1;
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    sigaction(SIGUSR1, &action, NULL);
    int held = open("lock", O_CREAT | O_RDWR, 0600), wanted = open("lock", O_RDWR);
    flock(held, LOCK_EX);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        int pause = i * 300, result;
        ready = back = 0;
        pthread_create(&thread, NULL, sender, &pause);
        ready = 1;
        result = flock(wanted, LOCK_EX);
        back = 1;
        if (result == 0 || errno != EINTR)
            return 1;
        pthread_join(thread, NULL);
    }
    printf("%d signals elsewhere, %d without their sender\n", elsewhere, strangers);
    return unlink("lock");
}
