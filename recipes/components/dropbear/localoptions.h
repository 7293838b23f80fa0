/* What differs from upstream's default_options.h, and why. */

/* Host keys are made when an instance is deployed, so that they are known beforehand. -R makes them
 * at the first connection: of an image that is started by itself, and of no other, where it would
 * hide a missing key behind a new one (patches/host-key-where-none-was-made.patch). */
#define DROPBEAR_DELAY_HOSTKEY 1

/* Only the ed25519 host key exists. Its path is upstream's default, stated because deploy relies
 * on it. */
#define ED25519_PRIV_FILENAME "/etc/dropbear/dropbear_ed25519_host_key"

/* Legacy cryptography: off by upstream's default in 2026.94, stated so that no later default
 * brings it back. */
#define DROPBEAR_3DES 0
#define DROPBEAR_ENABLE_CBC_MODE 0
#define DROPBEAR_SHA1_HMAC 0
#define DROPBEAR_SHA1_96_HMAC 0
#define DROPBEAR_RSA_SHA1 0
#define DROPBEAR_DSS 0
#define DROPBEAR_DH_GROUP1 0
#define DROPBEAR_DH_GROUP14_SHA1 0

/* Key exchange: X25519, alone or beside one of two post-quantum methods, which upstream has on by
 * default; stated so that no later default takes them away. Debian 12's client (OpenSSH 9.2) knows
 * the first only, since 9.9 both. The curves of NIST and the 2048-bit group are what nobody needs
 * who knows X25519 (OpenSSH since 6.5, PuTTY since 0.68); the last is a guess that saves a round trip
 * between two Dropbears, and that tools which rate servers take for an exchange of its own. */
#define DROPBEAR_SNTRUP761 1
#define DROPBEAR_MLKEM768 1
#define DROPBEAR_CURVE25519 1
#define DROPBEAR_ECDH 0
#define DROPBEAR_DH_GROUP14_SHA256 0
#define DROPBEAR_DH_GROUP16 0
#define DROPBEAR_KEXGUESS2 0

/* Forwarding. X11, Unix sockets and agents had CVEs of their own in 2025 and 2026 and nobody needs
 * them inside an instance. A remote forward would open ports of the host, whose network an
 * instance shares. A local forward (ssh -L) opens nothing and stays. */
#define DROPBEAR_X11FWD 0
#define DROPBEAR_SVR_LOCALSTREAMFWD 0
#define DROPBEAR_SVR_REMOTESTREAMFWD 0
#define DROPBEAR_SVR_AGENTFWD 0
#define DROPBEAR_CLI_AGENTFWD 0
#define DROPBEAR_SVR_REMOTETCPFWD 0

/* A password in the environment is readable by every process of that user. */
#define DROPBEAR_USE_PASSWORD_ENV 0

/* For sftp, and for scp of OpenSSH 9.0 and newer: the component sftp-server. In an image without it
 * the request fails, and scp needs -O on the client. */
#define DROPBEAR_SFTPSERVER 1
#define SFTPSERVER_PATH "/cbin/sftp-server"

/* Password logins stay compiled in for images whose recipe sets a hash; the default image has
 * none, and blank passwords need -B, which the image's inittab does not give. */
#define DROPBEAR_SVR_PASSWORD_AUTH 1
#define MAX_AUTH_TRIES 5

/* Connections that have not authenticated. All neighbours and the host come from 127.0.0.1, so a
 * limit for each address would let one lock out all; upstream's 30 are few for one who logs in from
 * scripts. Each is a process of the instance's root, who may have 128. Beyond them the oldest makes
 * room (patches/newest-connection-stays.patch). Seconds until such a connection ends: upstream has
 * five minutes. */
#define MAX_UNAUTH_PER_IP 96
#define MAX_UNAUTH_CLIENTS 96
#define AUTH_TIMEOUT 60

/* Where things are in the image. */
#define DROPBEAR_PIDFILE "/run/dropbear.pid"
#define DROPBEAR_PATH_SSH_PROGRAM "/cbin/dbclient"
#define DEFAULT_PATH "/usr/local/bin:/bin"
#define DEFAULT_ROOT_PATH "/usr/local/bin:/bin"
