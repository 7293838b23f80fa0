# The sources of sftp-server, 31 of the 300 that OpenSSH has.
OBJECTS = \
    addr.o addrmatch.o atomicio.o fatal.o log.o match.o misc.o platform-misc.o platform-pledge.o \
    platform-tracing.o sftp-common.o sftp-realpath.o sftp-server-main.o sftp-server.o \
    sshbuf-getput-basic.o sshbuf-misc.o sshbuf.o ssherr.o xmalloc.o \
    openbsd-compat/base64.o openbsd-compat/bsd-closefrom.o openbsd-compat/bsd-misc.o \
    openbsd-compat/fmt_scaled.o openbsd-compat/freezero.o openbsd-compat/port-net.o \
    openbsd-compat/pwcache.o openbsd-compat/recallocarray.o openbsd-compat/strmode.o \
    openbsd-compat/strtonum.o openbsd-compat/timingsafe_bcmp.o openbsd-compat/vis.o

sftp-server: $(OBJECTS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(OBJECTS)

%.o: %.c config.h
	$(CC) $(CFLAGS) -I. -Iopenbsd-compat -D_GNU_SOURCE -DHAVE_CONFIG_H -c -o $@ $<
