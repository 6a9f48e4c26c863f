#!/bin/busybox sh
# The first program of a Linux with a shell.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
$b --install /bin
export PATH=/bin
echo "poweroff -f ends the VM; reboot -f begins it again"
exec setsid cttyhack sh
