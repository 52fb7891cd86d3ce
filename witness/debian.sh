# shellcheck shell=bash
# Debian's packages, unpacked aside through package lists of one's own: nothing of the machine's is changed. Sourced, not run, by scripts
# that have `work`, a directory, and the functions `fail` and `say`.

# package_lists ARCHITECTURE SUITE…: the machine's own suites and those; those alone where own_suites is "no". Source packages are
# those of source_suites.
package_lists() {
  local architecture=$1 suite types source_of apt_root="$work/apt"
  shift
  mkdir -p "$apt_root"/etc/apt/{sources.list.d,preferences.d,apt.conf.d} "$apt_root"/var/lib/{apt/lists/partial,dpkg} \
    "$apt_root"/var/cache/apt/archives/partial
  : >"$apt_root/var/lib/dpkg/status"
  if [ "${own_suites:-yes}" = yes ]; then
    cp /etc/apt/sources.list "$apt_root/etc/apt/" 2>/dev/null || true
    cp /etc/apt/sources.list.d/debian*.{sources,list} "$apt_root/etc/apt/sources.list.d/" 2>/dev/null || true
  fi
  # Another suite comes from where the machine's own first one does.
  rm -f "$apt_root/etc/apt/sources.list.d/witness.sources"
  for suite in "$@" "${source_suites[@]/#/src:}"; do
    source_of=$(grep -hE '^URIs:' /etc/apt/sources.list.d/debian*.sources 2>/dev/null | head -n 1 | sed 's/^URIs: *//')
    [ -n "$source_of" ] || source_of=$(awk '$1 == "deb" { print $2; exit }' /etc/apt/sources.list 2>/dev/null || true)
    [ -n "$source_of" ] || fail "--suite $suite: this machine's apt names no source to take it from"
    case "$suite" in src:*) types=deb-src ;; *) types=deb ;; esac
    printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' \
      "$types" "$source_of" "${suite#src:}" >>"$apt_root/etc/apt/sources.list.d/witness.sources"
  done
  cat >"$apt_root/apt.conf" <<END
Dir "$apt_root";
Dir::State::status "$apt_root/var/lib/dpkg/status";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "";
END
  export APT_CONFIG="$apt_root/apt.conf"
  apt-get update -q >"$work/update.log" 2>&1 || fail "Debian's package lists cannot be had: see $work/update.log"
}

# fetch PACKAGE DIRECTORY: unpacks a package aside, once.
fetch() {
  [ -e "$2/.complete" ] && return
  rm -rf "$2" && mkdir -p "$2"
  (cd "$2" && apt-get download -q "$1" >"$work/download.log" 2>&1) || fail "$1 cannot be fetched: see $work/download.log"
  dpkg-deb -x "$2"/*.deb "$2"
  rm -f "$2"/*.deb
  touch "$2/.complete"
}

# fetch_source PACKAGE DIRECTORY: downloads a source package's archive, once.
fetch_source() {
  [ -e "$2/.complete" ] && return
  rm -rf "$2" && mkdir -p "$2"
  (cd "$2" && apt-get source -q --download-only --tar-only "$1" >"$work/download.log" 2>&1) || fail "the source of $1 cannot be fetched: see $work/download.log"
  touch "$2/.complete"
}
