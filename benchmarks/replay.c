/*
 * The peer of `doit deploy`: makes the same directories, files and links COUNT times with plain
 * system calls, one process, nothing else. What a deploy may cost is measured against it.
 *
 *   replay LIST PREFIX FIRST COUNT BASE STEP OWNER
 *
 * LIST holds the entries of one root, parents first, fields separated by one space:
 *   d MODE UID GID PATH\n             a directory
 *   l UID GID LENGTH PATH\nTARGET\n   a link; LENGTH bytes of target follow
 *   f MODE UID GID LENGTH PATH\nCONTENT\n
 *   s LENGTH\nCONTENT\n               what lies in PREFIX/state/N.json
 * Instance N becomes PREFIX/niftyN; its owners are shifted by BASE + STEP * N.
 * OWNER is `chown` (after each entry is made) or `fsuid` (setfsuid before an instance's first).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct entry {
    char kind;
    unsigned mode, uid, gid;
    size_t length;
    const char *path, *content;
};

static void fail(const char *what) {
    fprintf(stderr, "replay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *slurp(const char *path, size_t *size) {
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts) < 0) fail(path);
    char *text = malloc(facts.st_size + 1);
    if (!text || read(fd, text, facts.st_size) != facts.st_size) fail(path);
    close(fd);
    text[facts.st_size] = 0;
    *size = facts.st_size;
    return text;
}

static size_t parse(char *text, size_t size, struct entry *entries) {
    size_t count = 0;
    for (char *at = text; at < text + size; count++) {
        struct entry *it = entries + count;
        char *end = strchr(at, '\n');
        int path = 0;
        *end = 0;
        memset(it, 0, sizeof *it);
        it->kind = *at;
        if (*at == 'd') sscanf(at, "d %o %u %u %n", &it->mode, &it->uid, &it->gid, &path);
        if (*at == 'l') sscanf(at, "l %u %u %zu %n", &it->uid, &it->gid, &it->length, &path);
        if (*at == 'f')
            sscanf(at, "f %o %u %u %zu %n", &it->mode, &it->uid, &it->gid, &it->length, &path);
        if (*at == 's') sscanf(at, "s %zu%n", &it->length, &path);
        it->path = at + path;
        it->content = end + 1;
        at = end + 1;
        if (it->kind != 'd') {
            at[it->length] = 0;
            at += it->length + 1;
        }
    }
    return count;
}

static void fill(const char *path, const struct entry *it, unsigned mode, int own, unsigned base) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) fail(path);
    if (it->length && write(fd, it->content, it->length) != (ssize_t)it->length) fail(path);
    if (own && fchown(fd, base + it->uid, base + it->gid) < 0) fail(path);
    close(fd);
}

static void make(const struct entry *it, int own, unsigned base, const char *state) {
    if (it->kind == 's') {
        fill(state, it, 0644, 0, 0);
        return;
    }
    /* with fsuid only what is not root's needs an owner of its own */
    int chowns = own || it->uid || it->gid;
    if (it->kind == 'd') {
        if (mkdir(it->path, it->mode) < 0) fail(it->path);
        if (chowns && chown(it->path, base + it->uid, base + it->gid) < 0) fail(it->path);
    } else if (it->kind == 'l') {
        if (symlink(it->content, it->path) < 0) fail(it->path);
        if (chowns && lchown(it->path, base + it->uid, base + it->gid) < 0) fail(it->path);
    } else {
        fill(it->path, it, it->mode, chowns, base);
    }
}

static void root(const struct entry *entries, size_t count, const char *prefix, long number,
                 unsigned base, int own) {
    char name[4096], state[4096];
    snprintf(name, sizeof name, "%s/nifty%ld", prefix, number);
    snprintf(state, sizeof state, "%s/state/%ld.json", prefix, number);
    if (mkdir(name, 0755) < 0 || chown(name, base, base) < 0 || chdir(name) < 0) fail(name);
    for (int later = 0; later < 2; later++) {
        if (!own) {
            setfsgid(later ? 0 : base);
            setfsuid(later ? 0 : base);
        }
        for (size_t i = 0; i < count; i++) {
            const struct entry *it = entries + i;
            int is_later = !own && (it->uid || it->gid || it->kind == 's');
            if (is_later == later) make(it, own, base, state);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: replay LIST PREFIX FIRST COUNT BASE STEP chown|fsuid\n");
        return 2;
    }
    size_t size;
    char *text = slurp(argv[1], &size);
    struct entry *entries = malloc((size / 6 + 1) * sizeof *entries);
    size_t count = parse(text, size, entries);
    long first = atol(argv[3]), last = first + atol(argv[4]);
    unsigned base = strtoul(argv[5], 0, 10), step = strtoul(argv[6], 0, 10);
    int own = !strcmp(argv[7], "chown");
    char state[4096];
    umask(0);
    snprintf(state, sizeof state, "%s/state", argv[2]);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (mkdir(state, 0755) < 0 && errno != EEXIST) fail(state);
    for (long number = first; number < last; number++)
        root(entries, count, argv[2], number, base + step * number, own);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.9f\n", (to.tv_sec - from.tv_sec) + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
