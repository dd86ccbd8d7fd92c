#!/bin/sh
# Makes a Debian 12 machine ready for the farm: packages, newer QEMU and libvirt beside the system,
# a guest kernel, a Python environment. Run by every `make` target; costs nothing when all is there.
#
# Looks before it changes anything, and says in one line what to do where something is missing.
# Packages are the only thing that leaves FARM_HOME. No service is started, none is enabled.
set -eu

cd "$(dirname "$0")"
FARM_HOME=${FARM_HOME:-$PWD/var}
PYTHON=/usr/bin/python3
NEED_FREE_MIB=6144

SYSTEM_PACKAGES="qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
 libvirt-dev libevent-2.1-7 pkg-config gcc libc6-dev python3 python3-dev python3-venv bubblewrap lz4
 mmdebstrap grub-common grub-pc-bin grub-efi-amd64-bin ovmf mtools dosfstools
 ccache ninja-build libglib2.0-dev libpixman-1-dev libfdt-dev
 xfsprogs e2fsprogs btrfs-progs iproute2 util-linux procps git openssh-client"
TEST_PACKAGES="chromium busybox-static openssl"   # the tests look at the pages, boot an operator's guest, make certificates
# unpacked beside the system: as packages they would start services of their own
UNPACKED_PACKAGES="memcached"
# what an OpenStack deployment keeps its state in, and lets its services talk through
OPENSTACK_PACKAGES="postgresql-15 rabbitmq-server erlang-base erlang-asn1 erlang-crypto erlang-eldap erlang-inets
 erlang-mnesia erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools erlang-ssl erlang-syntax-tools
 erlang-tools erlang-xmerl"
OPENSTACK_LIBRARIES="libicu72 libldap-2.5-0 libxml2 libssl3 libpam0g libgssapi-krb5-2"
BACKPORTS_PACKAGES="qemu-system-x86 qemu-system-common qemu-system-data qemu-block-extra qemu-utils seabios
 libvirt0 libvirt-common libvirt-clients libvirt-daemon libvirt-daemon-common libvirt-daemon-lock
 libvirt-daemon-log libvirt-daemon-driver-qemu"

fail() { echo "setup: $*" >&2; exit 1; }
say() { printf '%s\n' "setup: $*"; }

check_machine() {
	[ "$(id -u)" = 0 ] || fail "must run as root (it makes namespaces and mounts): try 'sudo make run'"
	. /etc/os-release 2>/dev/null || fail "this is not Debian 12: no /etc/os-release"
	[ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ] ||
		fail "needs Debian 12, this is ${PRETTY_NAME:-unknown}: use a Debian 12 machine or VM"
	[ "$(uname -m)" = x86_64 ] || fail "needs an x86_64 machine, this is $(uname -m)"
	where=$FARM_HOME; while [ ! -d "$where" ]; do where=$(dirname "$where"); done
	free_mib=$(df -Pm "$where" | awk 'NR==2{print $4}')
	[ "$free_mib" -ge "$NEED_FREE_MIB" ] || fail "$free_mib MiB free under $where, $NEED_FREE_MIB needed:" \
		"free some space or set FARM_HOME to a larger disk"
	[ -e /dev/loop-control ] || modprobe loop 2>/dev/null || fail "no loop devices (/dev/loop-control):" \
		"load the 'loop' module, or give the container access to /dev/loop-control and /dev/loop*"
	grep -qw xfs /proc/filesystems || modprobe xfs 2>/dev/null || fail "this kernel has no XFS: load the 'xfs' module"
	grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null ||
		fail "this kernel has no overlay file system: load the 'overlay' module"
	unshare --mount --net --pid --fork true 2>/dev/null ||
		fail "may not make namespaces: run on the machine itself or in a container with CAP_SYS_ADMIN"
}

missing_packages() {
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
	done
}

apt_update() {
	[ -z "${apt_updated:-}" ] || return 0
	apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update >"$FARM_HOME/log/apt.log" 2>&1 ||
		fail "the Debian package source does not answer: check the network and /etc/apt, then run again (details: $FARM_HOME/log/apt.log)"
	apt_updated=1
}

install_packages() {
	missing=$(missing_packages "$@" | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	say "installing $missing"
	apt_update
	# Packages must not start daemons on a machine that is not ours: Debian's own switch for that
	made_policy=
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		made_policy=1; trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
	fi
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
		$missing >"$FARM_HOME/log/apt.log" 2>&1 </dev/null ||
		fail "apt-get could not install $missing: see $FARM_HOME/log/apt.log, then run again"
	[ -z "$made_policy" ] || { rm -f /usr/sbin/policy-rc.d; trap - EXIT INT TERM; }
}

# The tests start it themselves, inside hosts: a machine that had none has none at its next start either
install_sshd() {
	[ -n "$(missing_packages openssh-server)" ] || return 0
	install_packages openssh-server
	DPKG_MAINTSCRIPT_PACKAGE=openssh-server deb-systemd-helper disable ssh.service >/dev/null
}

# unpack DIR APT_OPTIONS -- PACKAGES...: downloads with apt (signatures checked) and unpacks without installing
unpack() {
	target=$1; options=$2; shift 2
	rm -rf "$target.part"; mkdir -p "$target.part/debs" "$target.part/root"
	( cd "$target.part/debs" && apt-get -qq $options -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$@" ) \
		>"$FARM_HOME/log/apt.log" 2>&1 || fail "could not download $*: see $FARM_HOME/log/apt.log, then run again"
	for deb in "$target.part"/debs/*.deb; do dpkg -x "$deb" "$target.part/root"; done
	ls "$target.part/debs" >"$target.part/packages.txt"
	rm -rf "$target.part/debs" "$target"; mv "$target.part" "$target"
}

unpack_memcached() {
	[ -e "$software/memcached/packages.txt" ] && return
	say "unpacking $UNPACKED_PACKAGES"
	apt_update
	unpack "$software/memcached" "" $UNPACKED_PACKAGES
}

unpack_backports() {
	[ -e "$software/backports/packages.txt" ] && return
	say "unpacking QEMU 10 and libvirt 11 from backports beside the system"
	apt_update
	# the mirror that this machine's own apt uses for bookworm
	mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
		awk '$2=="bookworm" && $3=="main"{print $1; exit}')
	[ -n "$mirror" ] || fail "apt has no source for bookworm main: add one to /etc/apt/sources.list.d"
	state=$software/backports-apt; mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" >"$state/sources.list"
	options="-o Dir::Etc::sourcelist=$state/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$state/lists -o Dir::Cache=$state/cache"
	apt-get -qq $options -o APT::Sandbox::User=root -o Acquire::Retries=3 -o APT::Update::Error-Mode=any update >"$FARM_HOME/log/apt.log" 2>&1 ||
		fail "the mirror has no bookworm-backports, or does not answer: see $FARM_HOME/log/apt.log"
	unpack "$software/backports" "$options" $BACKPORTS_PACKAGES
	rm -rf "$state"
	# Laid over /usr in a host's own mount namespace. Opaque: the system's older drivers must not shine through
	$PYTHON -c 'import os,sys
for name in ("libvirt","qemu"):
    os.setxattr(f"{sys.argv[1]}/root/usr/lib/x86_64-linux-gnu/{name}","trusted.overlay.opaque",b"y")' "$software/backports"
}

# Where they lie inside the walls: Debian has written into them that it is /usr
OPENSTACK_INSIDE=/services/usr

prepare_openstack() {
	install_packages $OPENSTACK_LIBRARIES
	if [ ! -e "$software/openstack/packages.txt" ]; then
		say "unpacking PostgreSQL and RabbitMQ"
		apt_update
		unpack "$software/openstack.new" "" $OPENSTACK_PACKAGES
		sed -i "s|ROOTDIR=/usr/lib/erlang|ROOTDIR=$OPENSTACK_INSIDE/lib/erlang|" "$software"/openstack.new/root/usr/lib/erlang/bin/erl
		rm -rf "$software/openstack"; mv "$software/openstack.new" "$software/openstack"
	fi
	key=$(sha256sum stacks/openstack-wheels.lock | cut -c1-16)
	[ "$(cat "$FARM_HOME/cache/wheels/lock-digest" 2>/dev/null)" = "$key" ] && return
	say "making wheels of what has none (pinned by digest)"
	rm -rf "$FARM_HOME/cache/wheels" "$FARM_HOME/cache/wheels.tools"
	pip="$FARM_HOME/venv/bin/python -m pip -q"
	{
		grep '^pbr==' stacks/openstack-wheels.lock |
			$pip install --no-deps --require-hashes --target "$FARM_HOME/cache/wheels.tools" -r /dev/stdin &&
			SOURCE_DATE_EPOCH=315532800 PYTHONPATH=$FARM_HOME/cache/wheels.tools $pip wheel --no-deps --require-hashes \
				--no-build-isolation --use-pep517 -r stacks/openstack-wheels.lock -w "$FARM_HOME/cache/wheels"
	} >"$FARM_HOME/log/pip.log" 2>&1 || fail "pip could not make the wheels: see $FARM_HOME/log/pip.log, then run again"
	rm -rf "$FARM_HOME/cache/wheels.tools"
	echo "$key" >"$FARM_HOME/cache/wheels/lock-digest"
}

unpack_guest_kernel() {
	[ -e "$software/guest-kernel/packages.txt" ] && return
	say "unpacking the guests' kernel"
	apt_update
	kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
	unpack "$software/guest-kernel" "" "$kernel"
}

# Every ten seconds how far pip is, for as long as this script runs
tell_progress_of_pip() {
	exec 9>&-  # the lock is not the teller's
	all=$(grep -c '^[a-z].*==' requirements.lock); began_s=$(date +%s)
	while sleep 10 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
		what="package $(grep -c '^Collecting' "$FARM_HOME/log/pip.log" || :) of $all"
		! grep -q '^Installing collected' "$FARM_HOME/log/pip.log" || what="unpacking $all packages"
		say "$what, $(($(date +%s) - began_s)) s so far"
	done
}

python_environment() {
	key=$(sha256sum requirements.lock | cut -c1-16)
	[ "$(cat "$FARM_HOME/venv/lock-digest" 2>/dev/null)" = "$key" ] && return
	say "installing Python packages (pinned by digest)"
	rm -rf "$FARM_HOME/venv"; $PYTHON -m venv "$FARM_HOME/venv"
	: >"$FARM_HOME/log/pip.log"
	tell_progress_of_pip & teller=$!
	"$FARM_HOME/venv/bin/python" -m pip install --progress-bar off --require-hashes -r requirements.lock \
		>>"$FARM_HOME/log/pip.log" 2>&1 || pip_failed=1
	kill "$teller" 2>/dev/null || :
	[ -z "${pip_failed:-}" ] || fail "pip could not install requirements.lock: see $FARM_HOME/log/pip.log, then run again"
	# the four packages are imported from this checkout
	echo "$PWD" >"$FARM_HOME/venv/lib/python3.11/site-packages/farm-checkout.pth"
	printf '#!/bin/sh\nexec "%s" -m farm.cli "$@"\n' "$FARM_HOME/venv/bin/python" >"$FARM_HOME/venv/bin/farm"
	chmod 755 "$FARM_HOME/venv/bin/farm"
	echo "$key" >"$FARM_HOME/venv/lock-digest"
}

check_machine
mkdir -p "$FARM_HOME/log" "$FARM_HOME/cache/software"
software=$FARM_HOME/cache/software
exec 9>"$FARM_HOME/log/setup.lock"
flock -w 900 9 || fail "another set-up holds $FARM_HOME/log/setup.lock for 15 minutes: end it, then run again"
install_packages $SYSTEM_PACKAGES
[ "${1:-}" != --tests ] || { install_packages $TEST_PACKAGES; install_sshd; }
unpack_memcached
unpack_backports
unpack_guest_kernel
python_environment
case "${1:-}" in --tests | --openstack) prepare_openstack ;; esac
