/*
 * The peer of `doit start`: boots one init for each line of LIST in namespaces of its own, with
 * plain system calls, one after the other, no service manager. What a start may cost is measured
 * against it.
 *
 *   loop LIST CBIN
 *
 * A line of LIST is BASE NAME ROOT: the first of its 65536 users, its host name, its directory.
 * CBIN is what it sees read-only as /cbin. Prints "started SECONDS" when the last one has become
 * /sbin/init, waits for the end of standard input, kills every init it started (the kernel then
 * kills the rest of that PID namespace), waits for all, and prints "stopped SECONDS".
 * Should it be killed itself, each init dies with it (prctl(2), PR_SET_PDEATHSIG).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
#define RANGE 65536

struct instance {
    unsigned base;
    char name[65], root[1024];
    pid_t pid;
};

static struct instance *instances;
static size_t started;

static void end_all(void) {
    for (size_t i = 0; i < started; i++) kill(instances[i].pid, SIGKILL);
    for (size_t i = 0; i < started; i++) waitpid(instances[i].pid, NULL, 0);
}

static void fail(const char *what, int error) {
    fprintf(stderr, "loop: %s: %s\n", what, strerror(error));
    end_all();
    exit(1);
}

/* In the child: tell the parent which step failed, and why. */
static void give_up(int report, int step) {
    int told[2] = {step, errno};
    if (write(report, told, sizeof told) < 0) _exit(2);
    _exit(1);
}

static void read_only(const char *path, int report) {
    struct { uint64_t set, clear, propagation, userns; } attributes = {1 /* RDONLY */, 0, 0, 0};
    /* only adds: flags that the host's own mount has are locked here (mount_setattr(2)) */
    if (syscall(442 /* mount_setattr */, AT_FDCWD, path, 0, &attributes, sizeof attributes) < 0)
        give_up(report, 5);
}

/* No mknod in a user namespace: the host's nodes are bound, one by one. */
static void make_devices(int report) {
    static const char *const names[] = {"null", "zero", "full", "random", "urandom", "tty"};
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755") < 0) give_up(report, 7);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char from[32], to[32];
        snprintf(from, sizeof from, "/dev/%s", names[i]);
        snprintf(to, sizeof to, "dev/%s", names[i]);
        int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0) give_up(report, 7);
        close(fd);
        if (mount(from, to, NULL, MS_BIND, NULL) < 0) give_up(report, 7);
    }
}

static void child(const struct instance *it, const char *cbin, int go, int report) {
    char byte;
    if (read(go, &byte, 1) != 1) _exit(1); /* the parent has mapped our users */
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) give_up(report, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* after setresuid, which clears it */
    if (sethostname(it->name, strlen(it->name)) < 0) give_up(report, 2);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) give_up(report, 3);
    if (mount(it->root, it->root, NULL, MS_BIND | MS_REC, NULL) < 0) give_up(report, 3);
    if (chdir(it->root) < 0) give_up(report, 4);
    if (mount(cbin, "cbin", NULL, MS_BIND | MS_REC, NULL) < 0) give_up(report, 5);
    read_only("cbin", report);
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        give_up(report, 6);
    make_devices(report);
    /* the old root on top of the new one, and away (pivot_root(2)) */
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        give_up(report, 8);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        give_up(report, 9);
    char *words[] = {"init", NULL}, *environment[] = {"PATH=/sbin:/bin", NULL};
    setsid();
    execve("/sbin/init", words, environment);
    give_up(report, 10);
}

static void put(pid_t pid, const char *file, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(path, errno);
    close(fd);
}

static void start(struct instance *it, const char *cbin) {
    static const char *const steps[] = {
        "", "become root", "host name", "bind the root", "enter the root", "bind /cbin",
        "mount /proc", "make /dev", "pivot_root", "open /dev/null", "exec /sbin/init"};
    int go[2], report[2], told[2];
    char map[64];
    if (pipe2(go, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) fail("pipe", errno);
    it->pid = syscall(SYS_clone, NAMESPACES | SIGCHLD, NULL, NULL, NULL, 0);
    if (it->pid < 0) fail("clone", errno);
    if (it->pid == 0) {
        close(go[1]); /* should the parent die now, read() ends */
        child(it, cbin, go[0], report[1]);
    }
    started++;
    snprintf(map, sizeof map, "0 %u %d\n", it->base, RANGE);
    put(it->pid, "uid_map", map);
    put(it->pid, "gid_map", map);
    if (write(go[1], "g", 1) != 1) fail("pipe", errno);
    close(go[0]);
    close(go[1]);
    close(report[1]);
    /* closed by a successful exec */
    if (read(report[0], told, sizeof told) == sizeof told) fail(steps[told[0]], told[1]);
    close(report[0]);
}

static double seconds_since(const struct timespec *from) {
    struct timespec to;
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from->tv_sec) + (to.tv_nsec - from->tv_nsec) / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: loop LIST CBIN\n");
        return 2;
    }
    FILE *list = fopen(argv[1], "re");
    if (!list) fail(argv[1], errno);
    size_t count = 0, room = 0;
    struct instance it = {0};
    while (fscanf(list, "%u %64s %1023s\n", &it.base, it.name, it.root) == 3) {
        if (count == room) {
            room = room ? 2 * room : 64;
            instances = realloc(instances, room * sizeof *instances);
            if (!instances) fail("memory", errno);
        }
        instances[count++] = it;
    }
    fclose(list);

    umask(022);
    struct timespec from;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (size_t i = 0; i < count; i++) start(instances + i, argv[2]);
    printf("started %.6f\n", seconds_since(&from));
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0 || errno == EINTR) errno = 0;
    clock_gettime(CLOCK_MONOTONIC, &from);
    end_all();
    printf("stopped %.6f\n", seconds_since(&from));
    return 0;
}
